"""Sandboxes on the bridge: what they reach, what they are made of, and that nothing of them is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from executor_service.container import NameResolution, NetworkMode
from executor_service.network.sandbox import Sandbox
from executor_service.network.sandboxes import Sandboxes
from tests.fixtures.bridge import (
    OUTSIDE_IPV4,
    OUTSIDE_IPV6,
    PLAIN,
    ROUTER_IPV4,
    ROUTER_IPV6,
    bridge_config,
    bridge_network,
    exchange,
    interfaces,
    node_state,
    outside_machine,
    plain,
)
from tests.fixtures.netns import Namespace, command, open_namespace


@pytest.fixture
def outside() -> Iterator[Namespace]:
    with outside_machine() as machine:
        yield machine


async def _bridged(network: Sandboxes, sandbox_id: str) -> tuple[Sandbox, str, str]:
    sandbox = await network.create(sandbox_id, mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    return sandbox, sandbox.endpoints[0].ipv4_address, sandbox.endpoints[0].ipv6_address


async def test_how_names_are_resolved_outlives_the_one_that_said_so(network: Sandboxes) -> None:
    asked = NameResolution(servers=("192.0.2.53",), options=("ndots:2",))
    await network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN, resolution=asked)
    await network.create("two", mode=NetworkMode.BRIDGE, endpoints=PLAIN)
    assert (await network.join("sidecar", "one")).resolution == asked
    await network.leave("one")
    await network.reconcile({"sidecar": None, "two": PLAIN})
    assert {sandbox.id: sandbox.resolution for sandbox in await network.list()} == {
        "one": asked,
        "two": NameResolution(),
    }


async def test_two_sandboxes_reach_each_other_on_both_families(network: Sandboxes) -> None:
    one, one_ipv4, one_ipv6 = await _bridged(network, "one")
    two, two_ipv4, two_ipv6 = await _bridged(network, "two")
    with open_namespace(one.netns_path) as first, open_namespace(two.netns_path) as second:
        assert exchange(first, second, two_ipv4) == one_ipv4
        assert exchange(first, second, two_ipv6) == one_ipv6


async def test_a_sandbox_reaches_the_gateway_on_both_families(network: Sandboxes) -> None:
    sandbox, _, _ = await _bridged(network, "one")
    with open_namespace(sandbox.netns_path) as inside:
        for option, gateway in (("-4", sandbox.endpoints[0].ipv4_gateway), ("-6", sandbox.endpoints[0].ipv6_gateway)):
            assert "1 packets received" in inside.command("busybox", "ping", option, "-c1", "-W5", gateway)


async def test_what_leaves_the_bridge_carries_the_hosts_address(network: Sandboxes, outside: Namespace) -> None:
    sandbox, _, _ = await _bridged(network, "one")
    with open_namespace(sandbox.netns_path) as inside:
        assert exchange(inside, outside, OUTSIDE_IPV4) == ROUTER_IPV4
        assert exchange(inside, outside, OUTSIDE_IPV6) == ROUTER_IPV6


async def test_nobody_outside_reaches_a_sandbox_unasked(network: Sandboxes, outside: Namespace) -> None:
    sandbox, ipv4, ipv6 = await _bridged(network, "one")
    outside.command("ip", "route", "add", "172.30.0.0/24", "via", ROUTER_IPV4)
    outside.command("ip", "route", "add", "fd12:3456:789a::/64", "via", ROUTER_IPV6)
    with open_namespace(sandbox.netns_path) as inside:
        for address in (ipv4, ipv6):
            with pytest.raises(TimeoutError):
                exchange(outside, inside, address, timeout=0.5)


async def test_the_interface_is_eth0_with_its_mac_and_without_router_advertisements(network: Sandboxes) -> None:
    sandbox = await network.create("one", mode=NetworkMode.BRIDGE, endpoints=plain(mac_address="02:42:AC:11:00:99"))
    assert sandbox.endpoints[0].mac_address == "02:42:ac:11:00:99"
    with open_namespace(sandbox.netns_path) as inside:
        assert "02:42:ac:11:00:99" in inside.command("ip", "link", "show", "eth0")
        assert inside.command("sysctl", "-n", "net.ipv6.conf.eth0.accept_ra").strip() == "0"
        assert "tentative" not in inside.command("ip", "-6", "address", "show", "dev", "eth0", "scope", "global")


async def test_a_random_mac_is_locally_administered_and_individual(network: Sandboxes) -> None:
    first, _, _ = await _bridged(network, "one")
    second, _, _ = await _bridged(network, "two")
    assert first.endpoints[0].mac_address != second.endpoints[0].mac_address
    assert int(first.endpoints[0].mac_address[:2], 16) & 3 == 2


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "00:00:00:00:00:00", "02:42:ac:11:00", "02-42-ac-11-00-02", "x"])
async def test_a_mac_no_interface_can_have_is_refused(network: Sandboxes, mac: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await network.create("one", mode=NetworkMode.BRIDGE, endpoints=plain(mac_address=mac))
    assert caught.value.violations[0].field == "mac_address"
    assert await network.list() == []


async def test_mode_none_has_only_loopback_and_it_is_up(network: Sandboxes) -> None:
    sandbox = await network.create("one", mode=NetworkMode.NONE)
    assert not sandbox.endpoints
    with open_namespace(sandbox.netns_path) as inside:
        assert inside.run(interfaces) == {"lo"}
        assert "1 packets received" in inside.command("busybox", "ping", "-c1", "-W5", "127.0.0.1")


async def test_mode_host_makes_no_namespace(network: Sandboxes, tmp_path: Path) -> None:
    sandbox = await network.create("one", mode=NetworkMode.HOST)
    assert sandbox == Sandbox(id="one", mode=NetworkMode.HOST, netns_path="")
    assert list((tmp_path / "netns").iterdir()) == []
    assert await network.list() == [sandbox]
    await network.leave("one")
    assert await network.list() == []


async def test_a_hostile_id_names_no_path(network: Sandboxes, tmp_path: Path) -> None:
    sandbox = await network.create("../../escape", mode=NetworkMode.NONE)
    assert Path(sandbox.netns_path).parent == tmp_path / "netns"
    await network.leave("../../escape")
    assert list((tmp_path / "netns").iterdir()) == []


async def test_repeating_a_create_gives_the_same_sandbox(network: Sandboxes) -> None:
    first, second = await asyncio.gather(
        *(network.create("one", mode=NetworkMode.BRIDGE, endpoints=PLAIN) for _ in range(2))
    )
    assert first == second
    assert await network.list() == [first]


async def test_a_create_that_contradicts_the_existing_sandbox_is_refused_and_harmless(network: Sandboxes) -> None:
    sandbox, _, _ = await _bridged(network, "one")
    with pytest.raises(FailedPrecondition, match="'one' exists with mode bridge"):
        await network.create("one", mode=NetworkMode.NONE)
    assert await network.list() == [sandbox]
    with open_namespace(sandbox.netns_path) as inside:
        assert inside.run(interfaces) == {"lo", "eth0"}


async def test_twenty_at_once_have_addresses_of_their_own(network: Sandboxes) -> None:
    sandboxes = await asyncio.gather(
        *(network.create(f"s{n}", mode=NetworkMode.BRIDGE, endpoints=PLAIN) for n in range(20))
    )
    endpoints = [sandbox.endpoints[0] for sandbox in sandboxes if sandbox.endpoints[0] is not None]
    assert len({endpoint.ipv4_address for endpoint in endpoints}) == 20
    assert len({endpoint.ipv6_address for endpoint in endpoints}) == 20
    with open_namespace(sandboxes[0].netns_path) as first, open_namespace(sandboxes[19].netns_path) as last:
        exchange(first, last, endpoints[19].ipv4_address)


async def test_destroy_frees_namespace_interface_and_addresses(network: Sandboxes, tmp_path: Path) -> None:
    before = interfaces()
    sandbox, _, _ = await _bridged(network, "one")
    created = interfaces() - before
    assert len(created) == 1
    await network.leave("one")
    await network.leave("one")
    assert not Path(sandbox.netns_path).exists()
    assert await network.list() == []
    async with asyncio.timeout(60):
        while interfaces() & created:
            await asyncio.sleep(0.005)


async def test_an_address_is_not_given_again_at_once(network: Sandboxes) -> None:
    _, freed_ipv4, freed_ipv6 = await _bridged(network, "one")
    await network.leave("one")
    _, ipv4, ipv6 = await _bridged(network, "two")
    assert (ipv4, ipv6) != (freed_ipv4, freed_ipv6)
    assert (freed_ipv4, ipv4) == ("172.30.0.2", "172.30.0.3")


async def test_a_full_subnet_is_reported_and_a_destroyed_sandbox_makes_room(tmp_path: Path) -> None:
    config = bridge_config(tmp_path, ipv4_subnet="172.30.0.0/29")
    async with node_state(tmp_path) as database, bridge_network(config, database) as network:
        for number in range(5):
            await _bridged(network, f"s{number}")
        with pytest.raises(ResourceExhausted, match=r"172\.30\.0\.0/29 is free, all 5 are leased; remove containers"):
            await _bridged(network, "one too many")
        assert len(await network.list()) == 5
        await network.leave("s3")
        _, ipv4, _ = await _bridged(network, "fits again")
        assert ipv4 == "172.30.0.5"


async def test_the_hosts_end_is_on_the_bridge_in_hairpin_mode(network: Sandboxes) -> None:
    before = interfaces()
    await _bridged(network, "one")
    (port,) = interfaces() - before
    details = command("ip", "-d", "link", "show", port)
    assert "master swtest0" in details
    assert "hairpin on" in details
