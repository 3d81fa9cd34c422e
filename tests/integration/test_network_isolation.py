"""Several networks on one node: who reaches whom, by which addresses, and who leaves the node."""

from __future__ import annotations

import subprocess

import pytest

from executor_service.container import EndpointSpec
from executor_service.network.network import GatewayMode, SubnetSpec
from executor_service.network.sandboxes import Sandboxes
from tests.fixtures.bridge import (
    OUTSIDE_IPV4,
    PLAIN,
    exchange,
    outside_machine,
)
from tests.fixtures.netns import command, open_namespace
from tests.fixtures.user_networks import BACK, FRONT, blocked, default_route, on, pings, reaches, sandbox, spec


async def test_networks_are_apart_and_so_are_their_gateways(network: Sandboxes) -> None:
    await network.networks.create(spec(FRONT))
    await network.networks.create(spec(BACK))
    front, back, plain = (
        await sandbox(network, "front", *on(FRONT)),
        await sandbox(network, "back", *on(BACK)),
        await sandbox(network, "plain", *PLAIN),
    )
    for one, other in ((front, back), (back, plain), (plain, front)):
        for address in (other.endpoints[0].ipv4_address, other.endpoints[0].ipv6_address):
            assert blocked(one, other, address)
        with open_namespace(one.netns_path) as inside:
            assert pings(inside, one.endpoints[0].ipv4_gateway)
            assert pings(inside, one.endpoints[0].ipv6_gateway)
            assert not pings(inside, other.endpoints[0].ipv4_gateway, patience=1)
            assert not pings(inside, other.endpoints[0].ipv6_gateway, patience=1)


async def test_without_icc_containers_reach_the_gateway_and_not_each_other(network: Sandboxes) -> None:
    await network.networks.create(spec(FRONT, icc=False))
    one, two = await sandbox(network, "one", *on(FRONT)), await sandbox(network, "two", *on(FRONT))
    for address in (two.endpoints[0].ipv4_address, two.endpoints[0].ipv6_address):
        assert blocked(one, two, address)
    with open_namespace(one.netns_path) as inside:
        assert pings(inside, one.endpoints[0].ipv4_gateway)
        # Nor by way of the gateway.
        inside.command("ip", "route", "add", two.endpoints[0].ipv4_address, "via", one.endpoints[0].ipv4_gateway)
    assert blocked(one, two, two.endpoints[0].ipv4_address)


async def test_nothing_leaves_an_internal_network_and_nothing_enters(network: Sandboxes) -> None:
    await network.networks.create(spec(FRONT, internal=True))
    await network.networks.create(spec(BACK))
    with outside_machine() as outside:
        one, two = await sandbox(network, "one", *on(FRONT)), await sandbox(network, "two", *on(FRONT))
        address = one.endpoints[0].ipv4_address
        outside.command("ip", "route", "add", "10.199.0.0/16", "via", "192.0.2.1")
        assert reaches(two, one, address)
        with open_namespace(one.netns_path) as inside:
            assert default_route(inside) == ""
            inside.command("ip", "route", "add", "default", "via", one.endpoints[0].ipv4_gateway)
            assert not pings(inside, OUTSIDE_IPV4, patience=1)
            assert not pings(inside, "192.0.2.1", patience=1)
            assert pings(inside, one.endpoints[0].ipv4_gateway)
            with pytest.raises((TimeoutError, OSError)):
                exchange(outside, inside, address, timeout=0.5)
        # With a second network that is none, that one is the way out.
        with open_namespace((await network.connect("one", EndpointSpec(network_id=BACK))).netns_path) as inside:
            assert "via 10.199.1.1 dev eth1" in default_route(inside)
            assert pings(inside, OUTSIDE_IPV4)


async def test_a_routed_network_is_reached_by_its_own_addresses_and_leaves_with_them(network: Sandboxes) -> None:
    routed = SubnetSpec(gateway_mode=GatewayMode.ROUTED)
    await network.networks.create(spec(FRONT, ipv4=routed))
    with outside_machine() as outside:
        outside.command("ip", "route", "add", "10.199.0.0/24", "via", "192.0.2.1")
        one = await sandbox(network, "one", *on(FRONT))
        with open_namespace(one.netns_path) as inside:
            assert exchange(inside, outside, OUTSIDE_IPV4) == one.endpoints[0].ipv4_address
            assert exchange(outside, inside, one.endpoints[0].ipv4_address) == OUTSIDE_IPV4


async def test_the_host_itself_is_not_on_an_isolated_network(network: Sandboxes) -> None:
    isolated = SubnetSpec(gateway_mode=GatewayMode.ISOLATED)
    made = await network.networks.create(spec(FRONT, ipv4=isolated, ipv6=isolated, internal=True))
    assert "inet" not in command("ip", "address", "show", "dev", made.bridge)
    one, two = await sandbox(network, "one", *on(FRONT)), await sandbox(network, "two", *on(FRONT))
    assert made.ipv4 is not None
    gateway, neighbour = str(made.ipv4.gateway), two.endpoints[0]
    assert (neighbour.ipv4_gateway, neighbour.ipv6_gateway) == ("", "")
    with open_namespace(one.netns_path) as inside:
        for address in (neighbour.ipv4_address, neighbour.ipv6_address):
            inside.command("busybox", "ping", "-c", "5", "-W", "1", address)
        with pytest.raises(subprocess.CalledProcessError):
            inside.command("busybox", "ping", "-c", "1", "-W", "1", gateway)
    with pytest.raises(subprocess.CalledProcessError):
        command("busybox", "ping", "-c", "1", "-W", "1", neighbour.ipv4_address)
