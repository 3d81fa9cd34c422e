"""What comes back by itself when somebody takes bridges, interfaces or rules away, also while no executor runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import network_service_pb2 as network_pb

from tests.fixtures import network_state
from tests.fixtures.name_servers import Client
from tests.fixtures.netns import command, open_namespace
from tests.fixtures.slipway import Slipway, installed

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON = 60.0  # seconds


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slipway]:
    """Two containers on two networks, one of which keeps its containers apart, and on the default one."""
    async with installed(tmp_path_factory.mktemp("services")) as engine:
        for name, icc in (("front", True), ("apart", False)):
            options = network_pb.BridgeOptions(enable_icc=icc)
            await engine.networks.CreateNetwork(network_pb.CreateNetworkRequest(name=name, bridge=options), timeout=30)
        ports = {"80": container_pb2.PortBindings(bindings=[container_pb2.PortBinding(host_port="8130")])}
        for name in ("one", "two"):
            published = ports if name == "one" else {}
            await engine.run("sleep", "300", name=name, network_mode="front", port_bindings=published)
            for network in ("apart", "bridge"):
                request = network_pb.ConnectContainerRequest(network=network, container=name)
                await engine.networks.ConnectContainer(request, timeout=30)
        yield engine


async def as_recorded(engine: Slipway) -> None:
    """The kernel has, soon, what the API says; and it works."""
    told = await network_state.records(engine)
    wanted, wrong = network_state.expected(told), ["nothing looked at"]
    try:
        async with asyncio.timeout(SOON):
            while wrong:
                if (found := await network_state.looked_at(engine, told)) is not None:
                    wrong = network_state.differences(wanted, found.objects)
    except TimeoutError:
        pass
    assert wrong == []
    one, two = await engine.inspect("one"), await engine.inspect("two")
    with open_namespace(f"/proc/{one.state.pid}/ns/net") as inside:
        neighbour = two.network_settings.networks
        for address in (neighbour["front"].ip_address, neighbour["front"].global_ipv6_address):
            inside.command("busybox", "ping", "-c", "1", "-W", "5", address)
        for network in ("front", "apart", "bridge"):
            inside.command("busybox", "ping", "-c", "1", "-W", "5", neighbour[network].gateway)
        assert await Client(inside).answers("two.front") == [neighbour["front"].ip_address]
        isolated = neighbour["apart"].ip_address
        said = inside.command("sh", "-c", f"busybox ping -c 1 -W 1 {isolated} >/dev/null && echo reached || echo apart")
        assert said == "apart\n"


async def restart(engine: Slipway) -> None:
    await engine.executor.start()
    await engine.node_back()


async def test_a_deleted_bridge_comes_back_with_all_that_was_plugged_in(engine: Slipway) -> None:
    await as_recorded(engine)
    for network in ("front", "apart", "bridge"):
        request = network_pb.InspectNetworkRequest(network=network)
        bridge = (await engine.networks.InspectNetwork(request, timeout=60)).network.bridge.name
        command("ip", "link", "delete", bridge)
        await as_recorded(engine)
    # What was prepared ahead works too.
    said = await engine.output("sh", "-c", "ping -c 1 -W 5 $(ip route | awk '/default/ {print $3}')")
    assert "1 packets received" in said


async def test_a_deleted_ruleset_comes_back(engine: Slipway) -> None:
    command("nft", "flush", "ruleset")
    await wait_until(lambda: "tcp . 8130" in command("nft", "list", "ruleset"))
    await as_recorded(engine)


async def test_what_was_taken_away_while_no_executor_ran_comes_back_with_the_next(engine: Slipway) -> None:
    request = network_pb.InspectNetworkRequest(network="front")
    bridge = (await engine.networks.InspectNetwork(request, timeout=60)).network.bridge.name
    pid = (await engine.inspect("two")).state.pid
    await engine.executor.kill()
    command("ip", "link", "delete", bridge)
    command("nft", "flush", "ruleset")
    command("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "delete", "eth0")
    await restart(engine)
    await as_recorded(engine)


async def test_a_deleted_interface_is_its_own_affair_until_it_is_connected_again(engine: Slipway) -> None:
    two = await engine.inspect("two")
    command("nsenter", f"--net=/proc/{two.state.pid}/ns/net", "ip", "link", "delete", "eth0")
    request = network_pb.DisconnectContainerRequest(network="front", container="two")
    await engine.networks.DisconnectContainer(request, timeout=30)
    again = network_pb.ConnectContainerRequest(network="front", container="two")
    await engine.networks.ConnectContainer(again, timeout=30)
    await as_recorded(engine)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not condition():
            await asyncio.sleep(0.02)
