"""One API service as a process over the embedded store or an etcd of its own, with nodes that are faked.

The API is the real program with its default settings; its nodes are one process, and the client is who measures.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from slipway.v1 import image_service_pb2 as image_pb
from slipway.v1 import node_service_pb2 as node_pb

from tests.bench import processes
from tests.bench.fake_nodes import HEALTH, node_address, node_name
from tests.fixtures.etcd import EtcdCluster, etcd_cluster
from tests.fixtures.fake_executor.images import archive
from tests.fixtures.slipway import Service, Slipway

MET = 120.0  # seconds until nodes that are not met have failed


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """`client` is its API seen by a client; `etcd` None: it has the embedded store. `nodes` is where the fakes are."""

    name: str
    client: Slipway
    etcd: EtcdCluster | None
    nodes: Path

    @property
    def api(self) -> Service:
        return self.client.api

    def processor_time(self) -> Mapping[str, float]:
        """Seconds that each part has run, this process as the clients."""
        members = self.etcd.members if self.etcd is not None else ()
        return {
            "API service": processes.processor_time([self.api.pid]),
            "etcd": processes.processor_time([each.process.pid for each in members if each.process is not None]),
            "nodes": processes.processor_time([self.client.executor.pid]),
            "clients": processes.processor_time([os.getpid()]),
        }

    async def take_in(self, count: int) -> None:
        """The first so many of its nodes."""
        for number in range(count):
            request = node_pb.AddNodeRequest(name=node_name(number), address=node_address(self.nodes, number))
            await self.client.nodes.AddNode(request, timeout=30)
        await self.met(count)

    async def met(self, count: int) -> None:
        """Until so many nodes are ready."""
        async with asyncio.timeout(MET):
            while len(await self._ready()) < count:
                await asyncio.sleep(0.5)

    async def _ready(self) -> list[node_pb.Node]:
        request = node_pb.ListNodesRequest(state=[node_pb.NODE_STATE_READY])
        return list((await self.client.nodes.ListNodes(request, timeout=30)).nodes)

    async def load_image(self) -> None:
        """What the fakes take for one."""
        await self.client.images.LoadImage(iter([image_pb.LoadImageRequest(chunk=archive())]), timeout=60)


@asynccontextmanager
async def control_plane(directory: Path, name: str, *, members: int, nodes: int) -> AsyncIterator[ControlPlane]:
    """Up, with so many members of etcd, 0 for the embedded store. The nodes are there and not taken in yet."""
    directory.mkdir(mode=0o755)
    fakes = directory / "nodes"
    fakes.mkdir(mode=0o755)
    async with AsyncExitStack() as stack:
        etcd = stack.enter_context(etcd_cluster(directory / "etcd", size=members)) if members else None
        executors = await stack.enter_async_context(_running(_fakes(directory, fakes, nodes)))
        api = await stack.enter_async_context(_running(_api(directory, etcd)))
        channel = await stack.enter_async_context(client_channel(api.address))
        client = Slipway(instance=directory.name, executor=executors, api=api).use(channel)
        yield ControlPlane(name=name, client=client, etcd=etcd, nodes=fakes)


def client_channel(address: str) -> grpc.aio.Channel:
    """A connection of its own, which is made again soon when the service was started again."""
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 200),
        ("grpc.max_receive_message_length", -1),
    ]
    return grpc.aio.insecure_channel(address, options=options)


@asynccontextmanager
async def _running(service: Service) -> AsyncIterator[Service]:
    """Killed at the end, which takes no time and needs nobody's help: nothing of it is kept."""
    try:
        await service.start()
        yield service
    finally:
        await service.kill()


def _fakes(directory: Path, sockets: Path, count: int) -> Service:
    return Service(
        module="tests.bench.fake_nodes",
        arguments=[str(sockets), str(count)],
        address=f"unix://{sockets / HEALTH}",
        log=directory / "nodes.log",
    )


def _api(directory: Path, etcd: EtcdCluster | None) -> Service:
    address = f"unix://{directory / 'api.sock'}"
    store = ["--store", f"etcd://{','.join(etcd.endpoints)}"] if etcd is not None else []
    return Service(
        module="api_service",
        arguments=[
            *("--log-format", "json", "--executor", "none"),
            *("--state-dir", str(directory / "state"), "--listen", address, *store),
        ],
        address=address,
        log=directory / "api.log",
    )
