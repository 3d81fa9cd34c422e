"""Two machines, each with both services, over one etcd: of a node's name there is one executor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import node_service_pb2 as node_pb

from tests.fixtures.api import refused
from tests.fixtures.etcd import EtcdCluster, etcd_cluster
from tests.fixtures.instance_names import new_instance
from tests.fixtures.slipway import RECONNECT_SOON, Slipway, installed, leftovers, reset, service


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path / "etcd") as cluster:
        yield cluster


@pytest.fixture
async def machines(tmp_path: Path, etcd: EtcdCluster) -> AsyncIterator[tuple[Slipway, Slipway]]:
    """All settings but the store are the usual ones. The second comes when the first is known."""
    store, name = ["--store", f"etcd://{','.join(etcd.endpoints)}"], new_instance()
    async with installed(tmp_path, api=store) as one, AsyncExitStack() as stack:
        stack.push_async_callback(reset, name)
        other = Slipway(
            instance=name,
            executor=service("executor", name, tmp_path),
            api=service("api", name, tmp_path, *store),
        )
        for each in (other.executor, other.api):
            stack.push_async_callback(each.stop)
            await each.start()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(other.api.address, options=RECONNECT_SOON))
        yield one, other.use(channel)
    assert leftovers(name) == []


async def test_the_second_machine_is_asked_for_nothing_until_its_node_has_another_name(
    machines: tuple[Slipway, Slipway],
) -> None:
    one, other = machines
    box = await one.run("sleep", "600")
    stop = pb.StopContainerRequest(container=box, timeout=0)
    for call in (
        other.load_busybox,
        partial(other.create, "true"),
        partial(other.containers.StopContainer, stop, timeout=60),
    ):
        why = await refused(call())
        assert (why.code, why.reason) == (grpc.StatusCode.UNAVAILABLE, "ANOTHER_EXECUTOR")
        assert "--node" in why.message
    assert (await other.inspect(box)).state.running
    await other.api.stop()
    other.api.arguments = [*other.api.arguments, "--node", "second"]
    await other.api.start()
    async with asyncio.timeout(60):
        while (node := await _node(other, "second")).state != node_pb.NODE_STATE_READY:
            await asyncio.sleep(0.05)
    assert node.executor_id != (await _node(other, "local")).executor_id
    await other.load_busybox()
    there = await other.run("sleep", "600", placement=container_pb2.Placement(constraints=["node.name==second"]))
    assert (await one.inspect(there)).node == "second"
    await other.remove(there)


async def _node(engine: Slipway, name: str) -> node_pb.Node:
    return (await engine.nodes.InspectNode(node_pb.InspectNodeRequest(node=name), timeout=10)).node
