"""Ports published and unpublished while the container runs, as their users see it."""

from __future__ import annotations

import asyncio
import socket

import grpc
import pytest
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb
from slipway.v1 import system_service_pb2 as system_pb

from tests.fixtures.netns import command
from tests.fixtures.port_world import (
    HOST_V4,
    HOST_V6,
    OUTSIDE_V4,
    OUTSIDE_V6,
    Ports,
    World,
    bindings,
    inside,
    ports_of,
    published,
    seen_by,
)
from tests.fixtures.sctp import Speaker
from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def update(engine: Slipway, box: str, ports: Ports | None = None, *unpublish: str) -> list[str]:
    request = pb.UpdateContainerRequest(container=box, port_bindings=bindings(ports or {}), unpublish=unpublish)
    return list((await engine.containers.UpdateContainer(request, timeout=60)).warnings)


async def refused(world: World, box: str, address: str, port: int) -> None:
    """Nobody answers another machine there."""
    with pytest.raises(ConnectionRefusedError):
        await seen_by(world, box, world.outside, address, port)


@pytest.mark.parametrize("host", [HOST_V4, HOST_V6])
async def test_a_port_comes_and_goes_without_touching_the_others(world: World, host: str) -> None:
    engine = world.engine
    box = await published(engine, {"80": [("", "8200")]})
    pid = (await engine.inspect(box)).state.pid
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        inside(pid) as namespace,
        namespace.socket(family, socket.SOCK_STREAM) as server,
        world.outside.socket(family, socket.SOCK_STREAM) as client,
    ):
        server.bind(("::" if ":" in host else "0.0.0.0", 88))
        server.listen()
        await update(engine, box, {"88": [("", "8288")]})
        client.connect((host, 8288))
        connection, _ = server.accept()
        with connection:
            await update(engine, box, {"81": [(HOST_V4, "8201")], "81/udp": [("", "8201")]})
            assert await seen_by(world, box, world.outside, HOST_V4, 8200) == OUTSIDE_V4
            assert await seen_by(world, box, world.outside, HOST_V4, 8201, container_port=81) == OUTSIDE_V4
            datagrams = socket.SOCK_DGRAM
            seen = await seen_by(world, box, world.outside, HOST_V6, 8201, container_port=81, kind=datagrams)
            assert seen == OUTSIDE_V6
            assert await ports_of(engine, box) == {
                "80/tcp": [("0.0.0.0", "8200"), ("::", "8200")],
                "81/tcp": [(HOST_V4, "8201")],
                "81/udp": [("0.0.0.0", "8201"), ("::", "8201")],
                "88/tcp": [("0.0.0.0", "8288"), ("::", "8288")],
            }
            await update(engine, box, {}, "80", "81/udp")
            await refused(world, box, HOST_V4, 8200)
            connection.send(b"goes on")
            assert client.recv(64) == b"goes on"
            await update(engine, box, {}, "81", "88")
            client.settimeout(0.3)
            connection.send(b"led nowhere")
            with pytest.raises(TimeoutError):
                client.recv(64)
    assert (await ports_of(engine, box), (await engine.inspect(box)).state.pid) == ({}, pid)
    await engine.remove(box)


async def test_it_is_told_recorded_and_there_after_a_restart(world: World) -> None:
    engine = world.engine
    box = await published(engine, {"80": [("", "")]})
    chosen = (await ports_of(engine, box))["80/tcp"]
    call = engine.system.StreamEvents(system_pb.StreamEventsRequest(), timeout=60)
    await update(engine, box, {"81": [("", "8202")]})
    async with asyncio.timeout(60):
        async for event in call:
            if event.event.action == "update":
                break
    call.cancel()
    await engine.containers.RestartContainer(pb.RestartContainerRequest(container=box, timeout=0), timeout=60)
    after = {"80/tcp": chosen, "81/tcp": [("0.0.0.0", "8202"), ("::", "8202")]}
    assert await ports_of(engine, box) == after
    assert await seen_by(world, box, world.outside, HOST_V6, 8202, container_port=81) == OUTSIDE_V6
    asked = (await engine.inspect(box)).host_config.port_bindings
    assert {port: [one.host_port for one in places.bindings] for port, places in asked.items()} == {
        "80/tcp": [""],
        "81/tcp": ["8202"],
    }
    for service in (engine.executor, engine.api):
        await service.kill()
        await service.start()
    await engine.node_back()
    assert await ports_of(engine, box) == after
    assert await seen_by(world, box, world.outside, HOST_V4, 8202, container_port=81) == OUTSIDE_V4
    await engine.kill(box)
    await engine.wait(box)
    await update(engine, box, {"82": [("", "8203")]}, "81")
    assert await ports_of(engine, box) == {}
    await engine.start(box)
    assert await ports_of(engine, box) == {"80/tcp": chosen, "82/tcp": [("0.0.0.0", "8203"), ("::", "8203")]}
    await engine.remove(box)


async def test_a_port_that_is_taken_names_who_has_it_and_nothing_changes(world: World) -> None:
    engine = world.engine
    holder = await published(engine, {"80": [("", "8204")]})
    box = await published(engine, {"80": [("", "8205")]})
    before = await ports_of(engine, box)
    rules = command("nft", "list", "ruleset")
    for wanted in ("8204", "8206"):
        with socket.socket(socket.AF_INET) as foreign:
            foreign.bind(("127.0.0.1", 8206))
            foreign.listen()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await update(engine, box, {"81": [("", "8207")], "82": [("", wanted)]}, "80")
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
        name = (await engine.inspect(holder)).name
        who = f"container '{name}' ({holder[:12]})" if wanted == "8204" else "port is already allocated by process"
        assert who in str(caught.value.details())
        assert (await ports_of(engine, box), command("nft", "list", "ruleset")) == (before, rules)
    for container in (box, holder):
        await engine.remove(container)


async def test_an_api_service_killed_in_between_leaves_all_or_nothing(world: World) -> None:
    """Not begun, under way, or done on the node and not acknowledged: record, inspect and kernel agree afterwards."""
    engine = world.engine
    box = await published(engine, {"80": [("", "8210")]})
    for number in range(6):
        wanted = str(8220 + number)
        under_way = asyncio.ensure_future(update(engine, box, {"81": [("", wanted)]}))
        # From before the call is heard to after it is done.
        await asyncio.wait([under_way], timeout=number * 0.008)
        await engine.api.kill()
        await engine.api.start()
        [outcome] = await asyncio.gather(under_way, return_exceptions=True)
        await engine.node_back()
        async with asyncio.timeout(60):
            while True:
                found = await engine.inspect(box)
                asked = found.host_config.port_bindings
                shown = await ports_of(engine, box)
                if {place.host_port for ports in asked.values() for place in ports.bindings} == {
                    place[1] for places in shown.values() for place in places
                }:
                    break
                await asyncio.sleep(0.05)
        if not isinstance(outcome, BaseException):
            assert shown["81/tcp"] == [("0.0.0.0", wanted), ("::", wanted)]
        rules = command("nft", "list", "ruleset")
        assert (f"tcp . {wanted} :" in rules) is (("81/tcp", wanted) in {(k, v[0][1]) for k, v in shown.items()})
        await update(engine, box, {}, "81")
    await engine.remove(box)


async def test_on_a_network_of_ones_own_ports_follow_the_gateway(world: World) -> None:
    engine = world.engine
    for name in ("front", "back"):
        await engine.networks.CreateNetwork(network_pb.CreateNetworkRequest(name=name), timeout=60)
    box = await engine.run("sleep", "300", network_mode="back", port_bindings=bindings({"80": [("", "8230")]}))
    assert await seen_by(world, box, world.outside, HOST_V4, 8230) == OUTSIDE_V4
    gateway = network_pb.ConnectContainerRequest(network="front", container=box)
    gateway.endpoint.gw_priority = 10
    await engine.networks.ConnectContainer(gateway, timeout=60)
    await update(engine, box, {"81": [("", "8231")]})
    for family, outside in ((HOST_V4, OUTSIDE_V4), (HOST_V6, OUTSIDE_V6)):
        assert await seen_by(world, box, world.outside, family, 8230) == outside
        assert await seen_by(world, box, world.outside, family, 8231, container_port=81) == outside
    neighbour = await engine.run("sleep", "300", network_mode="back")
    settings = (await engine.inspect(box)).network_settings.networks
    with inside((await engine.inspect(neighbour)).state.pid) as beside:
        # Of another network than the one that the port leads to: by the host's address, as everybody else.
        assert await seen_by(world, box, beside, HOST_V4, 8230) != ""
    assert settings["front"].ip_address in command("nft", "list", "ruleset")
    await engine.networks.DisconnectContainer(
        network_pb.DisconnectContainerRequest(network="front", container=box), timeout=30
    )
    assert await seen_by(world, box, world.outside, HOST_V6, 8231, container_port=81) == OUTSIDE_V6
    for container in (box, neighbour):
        await engine.remove(container)
    for name in ("front", "back"):
        await engine.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network=name), timeout=60)


@pytest.mark.parametrize("network", ["bridge", "own"])
async def test_sctp_is_led_there_and_back(world: World, network: str) -> None:
    """An association's first two packets; the kernel of the host need not speak SCTP itself to translate it."""
    engine = world.engine
    if network != "bridge":
        await engine.networks.CreateNetwork(network_pb.CreateNetworkRequest(name=network), timeout=60)
    box = await engine.run("sleep", "300", network_mode=network)
    await update(engine, box, {"80/sctp": [("", "8240")]})
    assert await ports_of(engine, box) == {"80/sctp": [("0.0.0.0", "8240"), ("::", "8240")]}
    with inside((await engine.inspect(box)).state.pid) as namespace:
        for family, host, outside in (
            (socket.AF_INET, HOST_V4, OUTSIDE_V4),
            (socket.AF_INET6, HOST_V6, OUTSIDE_V6),
        ):
            with Speaker.open(namespace, family) as server, Speaker.open(world.outside, family) as client:
                client.init(host, source=5000, destination=8240)
                asked = await asyncio.to_thread(server.receive)
                assert (asked.peer, asked.source, asked.destination, asked.intact) == (outside, 5000, 80, True)
                server.init_ack(asked)
                answer = await asyncio.to_thread(client.receive)
                assert (answer.peer, answer.source, answer.destination, answer.intact) == (host, 8240, 5000, True)
    taken = await engine.create("sleep", "300", port_bindings=bindings({"81/sctp": [("", "8240")]}))
    with pytest.raises(grpc.aio.AioRpcError, match="8240/sctp failed: port is already allocated by container"):
        await engine.start(taken)
    for container in (box, taken):
        await engine.remove(container)
    if network != "bridge":
        await engine.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network=network), timeout=60)
