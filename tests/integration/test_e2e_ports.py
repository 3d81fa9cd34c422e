"""Published ports as their users see them: other machines, the host itself, containers, and who must not get in."""

from __future__ import annotations

import asyncio
import os
import socket

import grpc
import pytest
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import network_service_pb2 as network_pb

from tests.fixtures.frames import send_datagram
from tests.fixtures.netns import command
from tests.fixtures.port_world import (
    HOST_V4,
    HOST_V6,
    OTHER_V4,
    OUTSIDE_V4,
    OUTSIDE_V6,
    World,
    bindings,
    inside,
    ports_of,
    published,
    seen_by,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_everybody_reaches_a_published_port_and_other_machines_keep_their_address(world: World) -> None:
    engine = world.engine
    box = await published(engine, {"80/tcp": [("", "8080")], "80/udp": [("", "8080")]})
    settings = (await engine.inspect(box)).network_settings.networks["bridge"]
    assert await ports_of(engine, box) == {
        "80/tcp": [("0.0.0.0", "8080"), ("::", "8080")],
        "80/udp": [("0.0.0.0", "8080"), ("::", "8080")],
    }
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        assert await seen_by(world, box, world.outside, HOST_V4, 8080, kind=kind) == OUTSIDE_V4
        assert await seen_by(world, box, world.outside, HOST_V6, 8080, kind=kind) == OUTSIDE_V6
        assert await seen_by(world, box, world.host, HOST_V4, 8080, kind=kind) == HOST_V4
        assert await seen_by(world, box, world.host, "127.0.0.1", 8080, kind=kind) == settings.gateway
        assert await seen_by(world, box, world.host, HOST_V6, 8080, kind=kind) == HOST_V6
        with inside((await engine.inspect(box)).state.pid) as itself:
            # Through the gateway's address or the host's other one: back into the container that asks.
            assert await seen_by(world, box, itself, HOST_V4, 8080, kind=kind) == settings.gateway
            assert await seen_by(world, box, itself, settings.gateway, 8080, kind=kind) == settings.gateway
            assert await seen_by(world, box, itself, HOST_V6, 8080, kind=kind) == settings.ipv6_gateway
    neighbour = await engine.run("sleep", "300")
    with inside((await engine.inspect(neighbour)).state.pid) as beside:
        assert await seen_by(world, box, beside, HOST_V4, 8080) == settings.gateway
        assert await seen_by(world, box, beside, HOST_V6, 8080) == settings.ipv6_gateway
    await engine.remove(neighbour)
    await engine.remove(box)
    with world.outside.socket(socket.AF_INET, socket.SOCK_STREAM) as late, pytest.raises(ConnectionRefusedError):
        late.connect((HOST_V4, 8080))


async def test_a_port_of_one_address_is_reached_there_only(world: World) -> None:
    engine = world.engine
    box = await published(engine, {"80": [(HOST_V4, "8081"), (HOST_V6, "8081"), ("127.0.0.1", "8082")]})
    assert await seen_by(world, box, world.outside, HOST_V4, 8081) == OUTSIDE_V4
    assert await seen_by(world, box, world.outside, HOST_V6, 8081) == OUTSIDE_V6
    assert await seen_by(world, box, world.host, "127.0.0.1", 8082)
    for client, address, port in (
        (world.outside, OTHER_V4, 8081),
        (world.host, "127.0.0.1", 8081),
        (world.outside, HOST_V4, 8082),
        (world.host, HOST_V4, 8082),
    ):
        with pytest.raises(ConnectionRefusedError):
            await seen_by(world, box, client, address, port)
    await engine.remove(box)


async def test_nobody_outside_reaches_loopback_or_a_container_directly(world: World) -> None:
    engine, outside = world.engine, world.outside
    box = await published(engine, {"80": [("127.0.0.1", "8083")], "80/udp": [("127.0.0.1", "8083")]})
    settings = (await engine.inspect(box)).network_settings.networks["bridge"]
    outside.command("ip", "route", "add", settings.ip_address, "via", HOST_V4)
    outside.command("ip", "-6", "route", "add", settings.global_ipv6_address, "via", HOST_V6)
    for address in (settings.ip_address, settings.global_ipv6_address):
        with pytest.raises(TimeoutError):
            await seen_by(world, box, outside, address, 80, timeout=0.3)
    bridge = f"slw-{engine.instance}"
    routers = {name: command("ip", "-br", "link", "show", name).split()[2] for name in ("uplink", bridge)}
    command("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/uplink/route_localnet")  # the worst host there is
    with (
        inside((await engine.inspect(box)).state.pid) as itself,
        itself.socket(socket.AF_INET, socket.SOCK_DGRAM, timeout=0.3) as published_service,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service,
    ):
        published_service.bind(("0.0.0.0", 80))
        service.bind(("127.0.0.1", 8085))
        service.settimeout(0.3)
        for port in (8083, 8085):
            for sender, interface, source, router in (
                (outside, "outside", OUTSIDE_V4, routers["uplink"]),
                (itself, "eth0", settings.ip_address, routers[bridge]),
            ):
                send_datagram(sender, interface, source=source, destination="127.0.0.1", port=port, router=router)
        for reached in (service, published_service):
            with pytest.raises(TimeoutError):
                reached.recvfrom(64)
    command("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/uplink/route_localnet")
    await engine.remove(box)


async def test_a_chosen_port_stays_the_containers_own(world: World) -> None:
    engine = world.engine
    box = await published(engine, {"80": [("", "")], "81-82/tcp": [("127.0.0.1", "")], "90": [("", "9100-9110")]})
    first = await ports_of(engine, box)
    assert len({place[1] for places in first.values() for place in places}) == 4
    assert first["90/tcp"][0][1] == "9100"
    await engine.kill(box)
    await engine.wait(box)
    assert await ports_of(engine, box) == {}
    other = await published(engine, {"90": [("", "9100-9110")], "80": [("", "")]})
    assert (await ports_of(engine, other))["90/tcp"][0][1] == "9101"
    await engine.start(box)
    assert await ports_of(engine, box) == first
    await engine.kill(box)
    await engine.wait(box)
    # Whoever asks for just that port gets it: nobody uses it.
    taker = await published(engine, {"80": [("", first["80/tcp"][0][1])]})
    await engine.start(box)
    again = await ports_of(engine, box)
    assert again["80/tcp"] != first["80/tcp"]
    assert {port: again[port] for port in again if port != "80/tcp"} == {
        port: first[port] for port in first if port != "80/tcp"
    }
    for container in (box, other, taker):
        await engine.remove(container)


async def test_a_conflict_names_who_holds_the_port_and_leaves_nothing(world: World) -> None:
    engine = world.engine
    holder = await published(engine, {"80": [("", "8090")]})
    for host_ip in ("", "127.0.0.1", HOST_V6):
        late = await engine.create(
            "sleep", "300", port_bindings=bindings({"81": [("", "8091")], "80": [(host_ip, "8090")]})
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await engine.start(late)
        assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
        assert "port is already allocated" in str(refused.value.details())
        name = (await engine.inspect(holder)).name
        assert f"container '{name}' ({holder[:12]})" in str(refused.value.details())
        await engine.remove(late)
    with socket.socket(socket.AF_INET6) as foreign:
        foreign.bind(("::", 8092))  # takes IPv4 too
        foreign.listen()
        late = await engine.create("sleep", "300", port_bindings=bindings({"80": [(HOST_V4, "8092")]}))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await engine.start(late)
        assert "port is already allocated by process" in str(refused.value.details())
        assert f"process {os.getpid()} (" in str(refused.value.details())
    await engine.start(late)  # it is free now
    assert await seen_by(world, late, world.outside, HOST_V4, 8092) == OUTSIDE_V4
    nowhere = await engine.create("sleep", "300", port_bindings=bindings({"80": [("192.0.2.77", "8093")]}))
    with pytest.raises(grpc.aio.AioRpcError, match=r"192\.0\.2\.77 is no address of this host"):
        await engine.start(nowhere)
    for container in (holder, late, nowhere):
        await engine.remove(container)
    free = await published(engine, {"80": [("", "8091")], "81": [("", "8090")]})
    await engine.remove(free)


async def test_datagrams_follow_the_port_to_another_container(world: World) -> None:
    engine = world.engine
    with world.outside.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((OUTSIDE_V4, 5353))
        client.sendto(b"too early", (HOST_V4, 8094))
        for number in range(2):
            box = await published(engine, {"80/udp": [("", "8094")]})
            with (
                inside((await engine.inspect(box)).state.pid) as namespace,
                namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
            ):
                server.bind(("0.0.0.0", 80))
                client.sendto(b"%d" % number, (HOST_V4, 8094))
                assert server.recvfrom(64) == (b"%d" % number, (OUTSIDE_V4, 5353))
            await engine.remove(box)


async def test_ports_are_shown_and_held_only_while_there_is_a_way_to_them(world: World) -> None:
    engine = world.engine
    await engine.networks.CreateNetwork(network_pb.CreateNetworkRequest(name="inner", internal=True), timeout=30)
    box = await published(engine, {"80": [("", "8105")], "81": [("", "")]})
    before = await ports_of(engine, box)
    inner = network_pb.ConnectContainerRequest(network="inner", container=box)
    await engine.networks.ConnectContainer(inner, timeout=30)
    assert await ports_of(engine, box) == before
    await engine.networks.DisconnectContainer(
        network_pb.DisconnectContainerRequest(network="bridge", container=box), timeout=30
    )
    assert await ports_of(engine, box) == {}
    again = network_pb.ConnectContainerRequest(network="bridge", container=box)
    other = await published(engine, {"80": [("", "8105")]})
    with pytest.raises(grpc.aio.AioRpcError, match=f"by container .* \\({other[:12]}\\)") as caught:
        await engine.networks.ConnectContainer(again, timeout=30)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert set((await engine.inspect(box)).network_settings.networks) == {"inner"}
    assert await seen_by(world, other, world.outside, HOST_V4, 8105) == OUTSIDE_V4
    await engine.remove(other)
    await engine.networks.ConnectContainer(again, timeout=30)
    assert await ports_of(engine, box) == before
    assert await seen_by(world, box, world.outside, HOST_V6, 8105) == OUTSIDE_V6
    await engine.remove(box)
    await engine.networks.RemoveNetwork(network_pb.RemoveNetworkRequest(network="inner"), timeout=30)


async def test_the_rules_are_right_after_the_executor_was_killed(world: World) -> None:
    engine = world.engine
    kept = await published(engine, {"80": [("", "8095")], "81": [("", "")]})
    gone = await published(engine, {"80": [("", "8096")]})
    before = await ports_of(engine, kept)
    dead = (await engine.inspect(gone)).state.pid
    await engine.executor.kill()
    assert await seen_by(world, kept, world.outside, HOST_V4, 8095) == OUTSIDE_V4
    command("kill", "-KILL", str(dead))
    await engine.executor.start()
    await engine.node_back()
    await engine.wait(gone)
    assert await ports_of(engine, kept) == before
    assert await seen_by(world, kept, world.outside, HOST_V6, 8095) == OUTSIDE_V6
    successor = await published(engine, {"80": [("", "8096")]})
    assert await seen_by(world, successor, world.outside, HOST_V4, 8096) == OUTSIDE_V4
    rules = command("nft", "list", "ruleset")
    assert rules.count("tcp . 8096 :") == 2
    for container in (kept, gone, successor):
        await engine.remove(container)
    assert " . 80 " not in command("nft", "list", "ruleset").partition("chain")[0]


async def test_an_operators_rules_come_first(world: World) -> None:
    box = await published(world.engine, {"80": [("", "8099")]})
    rule = "ct status dnat meta l4proto tcp ct original proto-dst 8099 ip saddr 198.51.100.2 drop"
    command("nft", "add table inet operator")
    command("nft", "add chain inet operator forward { type filter hook forward priority -10; policy accept; }")
    command("nft", f"add rule inet operator forward {rule}")
    with pytest.raises(TimeoutError):
        await seen_by(world, box, world.outside, HOST_V4, 8099, timeout=0.3)
    command("nft", "delete", "table", "inet", "operator")
    assert await seen_by(world, box, world.outside, HOST_V4, 8099) == OUTSIDE_V4
    await world.engine.remove(box)


async def test_a_ruleset_that_somebody_emptied_is_put_back_whole(world: World) -> None:
    box = await published(world.engine, {"80": [("", "8097")], "81": [("127.0.0.1", "8098")]})
    before = command("nft", "list", "ruleset")
    assert "8097" in before
    for _ in range(2):
        command("nft", "flush", "ruleset")
        async with asyncio.timeout(60):
            while command("nft", "list", "ruleset") != before:
                await asyncio.sleep(0.02)
        assert await seen_by(world, box, world.outside, HOST_V4, 8097) == OUTSIDE_V4
    await world.engine.remove(box)


async def test_all_exposed_ports_and_lists(world: World) -> None:
    engine = world.engine
    box = await engine.run(
        *("sleep", "300"),
        config={"exposed_ports": ["80", "90-92/udp", "95/udp"]},
        publish_all_ports=True,
        port_bindings=bindings({"91/udp": [("127.0.0.1", "8097")]}),
    )
    shown = await ports_of(engine, box)
    assert sorted(shown) == ["80/tcp", "90/udp", "91/udp", "92/udp", "95/udp"]
    assert shown["91/udp"] == [("127.0.0.1", "8097")]
    assert all(len(places) == 2 for port, places in shown.items() if port != "91/udp")
    plain = await engine.run(
        "sleep", "300", config={"exposed_ports": ["90-99"]}, port_bindings=bindings({"95": [("127.0.0.1", "8098")]})
    )
    listed = await engine.containers.ListContainers(pb.ListContainersRequest())
    [summary] = [container for container in listed.containers if container.id == plain]
    assert [
        (port.ip, port.private_port, port.private_port_last, port.public_port, port.type) for port in summary.ports
    ] == [
        ("", 90, 94, 0, "tcp"),
        ("127.0.0.1", 95, 0, 8098, "tcp"),
        ("", 96, 99, 0, "tcp"),
    ]
    assert sorted(await ports_of(engine, plain)) == ["90-94/tcp", "95/tcp", "96-99/tcp"]
    for container in (box, plain):
        await engine.remove(container)


async def test_a_thousand_ports(world: World) -> None:
    engine = world.engine
    box = await published(engine, {"1000-1999": [("", "20000-20999")]})
    for number in (1000, 1500, 1999):
        seen = await seen_by(world, box, world.outside, HOST_V4, 19000 + number, container_port=number)
        assert seen == OUTSIDE_V4
    assert len(await ports_of(engine, box)) == 1000
    await engine.remove(box)
