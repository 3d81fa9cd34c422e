"""Published ports on [::1]: the host itself is served, nobody else, over the executor's death."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import grpc
import pytest
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb

from tests.fixtures.netns import Namespace, command
from tests.fixtures.port_world import (
    HOST_V6,
    OUTSIDE_V6,
    World,
    bindings,
    inside,
    ports_of,
    published,
    seen_by,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def forwarders(world: World) -> list[int]:
    """The ports of [::1] that the executor listens on."""
    listed = command("ss", "-Hltnp6").splitlines()
    own = [line.split() for line in listed if f"pid={world.engine.executor.pid}," in line]
    return [int(words[3].rpartition(":")[2]) for words in own if words[3].startswith("[::1]")]


async def nobody_answers(world: World, box: str, client: Namespace, address: str, port: int) -> None:
    with pytest.raises(OSError):
        await seen_by(world, box, client, address, port, timeout=0.5)


async def test_the_host_reaches_what_is_published_on_all_addresses_by_its_own(world: World) -> None:
    engine = world.engine
    box = await published(engine, {"80": [("", "8400")]})
    gateway = (await engine.inspect(box)).network_settings.networks["bridge"].ipv6_gateway
    assert await seen_by(world, box, world.host, "::1", 8400) == gateway
    assert await seen_by(world, box, world.outside, HOST_V6, 8400) == OUTSIDE_V6
    await engine.remove(box)
    with pytest.raises(ConnectionRefusedError), world.host.socket(socket.AF_INET6, socket.SOCK_STREAM) as late:
        late.connect(("::1", 8400))


async def test_what_is_published_there_is_nobody_elses(world: World) -> None:
    engine = world.engine
    box = await published(engine, {"80": [("::1", "8401")], "81": [("::1", "")]})
    shown = await ports_of(engine, box)
    assert shown["80/tcp"] == [("::1", "8401")]
    assert await seen_by(world, box, world.host, "::1", 8401)
    assert await seen_by(world, box, world.host, "::1", int(shown["81/tcp"][0][1]), container_port=81)
    [own] = forwarders(world)
    with inside((await engine.inspect(box)).state.pid) as itself:
        settings = (await engine.inspect(box)).network_settings.networks["bridge"]
        world.outside.command("ip", "-6", "route", "replace", "local", "::1", "via", HOST_V6, "dev", "outside")
        for port in (8401, own):
            for client, address in (
                (world.outside, HOST_V6),
                (world.outside, "::1"),
                (world.host, HOST_V6),
                (itself, settings.ipv6_gateway),
                (itself, "::1"),
            ):
                await nobody_answers(world, box, client, address, port)
        with world.host.socket(socket.AF_INET6, socket.SOCK_STREAM, timeout=5) as curious:
            curious.connect(("::1", own))
            assert curious.recv(64) == b""
    await engine.remove(box)


async def test_conflicts_and_other_protocols(world: World) -> None:
    engine = world.engine
    box = await published(engine, {"80": [("::1", "8402")]})
    for host_ip in ("", "::", "::1"):
        late = await engine.create("sleep", "300", port_bindings=bindings({"80": [(host_ip, "8402")]}))
        with pytest.raises(grpc.aio.AioRpcError, match="port is already allocated by container"):
            await engine.start(late)
        await engine.remove(late)
    beside = await published(engine, {"80": [("127.0.0.1", "8402"), (HOST_V6, "8402")]})
    with socket.socket(socket.AF_INET6) as foreign:
        foreign.bind(("::1", 8403))
        foreign.listen()
        late = await engine.create("sleep", "300", port_bindings=bindings({"80": [("", "8403")]}))
        with pytest.raises(grpc.aio.AioRpcError, match="port is already allocated by process"):
            await engine.start(late)
    await engine.start(late)
    with pytest.raises(grpc.aio.AioRpcError, match="only tcp can be published on ::1"):
        await engine.create("sleep", "300", port_bindings=bindings({"80/udp": [("::1", "")]}))
    for container in (box, beside, late):
        await engine.remove(container)


async def test_bytes_go_both_ways_to_their_end_and_stop_when_the_port_is_unpublished(world: World) -> None:
    engine = world.engine
    await engine.networks.CreateNetwork(network_pb.CreateNetworkRequest(name="four", enable_ipv6=False), timeout=60)
    box = await engine.run("sleep", "300", network_mode="four", port_bindings=bindings({"80": [("::1", "8404")]}))
    payload = bytes(range(256)) * 16384  # 4 MiB, more than any buffer on the way
    with (
        inside((await engine.inspect(box)).state.pid) as namespace,
        namespace.socket(socket.AF_INET, socket.SOCK_STREAM, timeout=60) as listening,
    ):
        listening.bind(("0.0.0.0", 80))
        listening.listen()

        def answer() -> int:
            connection, _ = listening.accept()
            with connection:
                received = b"".join(iter(lambda: connection.recv(65536), b""))
                connection.sendall(received)
            return len(received)

        answered = asyncio.ensure_future(asyncio.to_thread(answer))
        reader, writer = await asyncio.open_connection("::1", 8404)
        writer.write(payload)
        writer.write_eof()
        async with asyncio.timeout(60):
            assert await reader.read(-1) == payload
            assert await answered == len(payload)
        writer.close()

        reader, writer = await asyncio.open_connection("::1", 8404)
        connection, _ = await asyncio.to_thread(listening.accept)
        request = pb.UpdateContainerRequest(container=box, unpublish=["80"])
        await engine.containers.UpdateContainer(request, timeout=60)
        async with asyncio.timeout(60):
            assert await reader.read(1) == b""
        writer.close()
        connection.close()
    await engine.remove(box)
    await engine.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network="four"), timeout=60)


async def test_the_next_executor_serves_the_same_ports_by_one_socket(world: World) -> None:
    engine = world.engine
    box = await published(engine, {"80": [("::1", "8405")], "1000-1299": [("", "8500-8799")]})
    assert len(forwarders(world)) == 1
    before = len(list(Path(f"/proc/{engine.executor.pid}/fd").iterdir()))
    await engine.executor.kill()
    assert await seen_by(world, box, world.outside, HOST_V6, 8500, container_port=1000) == OUTSIDE_V6
    await engine.executor.start()
    await engine.node_back()
    assert await seen_by(world, box, world.host, "::1", 8405)
    assert await seen_by(world, box, world.host, "::1", 8799, container_port=1299)
    command("nft", "flush", "ruleset")
    async with asyncio.timeout(60):
        while "8405" not in command("nft", "list", "ruleset"):
            await asyncio.sleep(0.02)
    assert await seen_by(world, box, world.host, "::1", 8405)
    assert len(forwarders(world)) == 1
    assert before < 300  # no descriptor for each port
    await engine.remove(box)
