"""What the executor refuses of a network by itself, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address

import pytest

from common.errors import FailedPrecondition, InvalidArgument
from executor_service.dns.elsewhere import ContainerElsewhere
from executor_service.network.network import (
    GatewayMode,
    MacvlanLink,
    NetworkSpec,
    OverlayLink,
    Peer,
    SubnetSpec,
    Underlay,
)
from executor_service.operations.network_overlay import names_elsewhere_set, overlay_peers_set
from executor_service.operations.network_store import network_create, network_remove
from tests.fixtures.fake_host.host import FakeHost

NETWORK = "ab" * 32
WHOLE = IPv4Network("10.120.0.0/16")
LAN = SubnetSpec(subnet=IPv4Network("10.88.0.0/24"))


@pytest.mark.parametrize(
    ("spec", "broken"),
    [
        (
            NetworkSpec(id=NETWORK, name="lo", ipv4=SubnetSpec(subnet=IPv4Network("127.9.0.0/24"))),
            [("spec.ipv4.subnet", "127.9.0.0/24 overlaps 127.0.0.0/8, which is set apart for loopback")],
        ),
        (
            NetworkSpec(id=NETWORK, name="link", ipv6=SubnetSpec(subnet=IPv6Network("fe80:1::/64"))),
            [("spec.ipv6.subnet", "fe80:1::/64 overlaps fe80::/10, which is set apart for link-local addresses")],
        ),
        (
            NetworkSpec(id=NETWORK, name="lan", macvlan=MacvlanLink(parent="../eth0"), ipv4=LAN, bridge="br0"),
            [
                ("spec.bridge", "a macvlan network has no bridge"),
                ("spec.macvlan.parent", "'../eth0' must be the name of an interface"),
            ],
        ),
        (
            NetworkSpec(
                id=NETWORK,
                name="wide",
                overlay=OverlayLink(vni=0, port=70_000, ipv4=WHOLE, ipv6=IPv6Network("fe80::/48")),
                underlay=Underlay(
                    local=ip_address("10.90.0.1"),
                    peers=(
                        Peer(address=ip_address("10.90.0.1"), ipv4=IPv4Network("10.120.1.0/25")),
                        Peer(address=ip_address("fd00::2"), ipv4=IPv4Network("10.121.2.0/24")),
                    ),
                ),
                ipv4=SubnetSpec(subnet=IPv4Network("10.120.1.0/24"), gateway=ip_address("10.120.1.9")),
                ipv6=SubnetSpec(subnet=IPv6Network("fd00::/64"), gateway_mode=GatewayMode.ROUTED),
            ),
            [
                ("spec.ipv4.gateway", "is the slice's first address on every node"),
                ("spec.ipv6.gateway_mode", "must be NAT"),
                ("spec.ipv6.subnet", "must be this node's slice of fe80::/48"),
                ("spec.overlay.ipv6", "fe80::/48 overlaps fe80::/10, which is set apart"),
                ("spec.overlay.port", "70000 must be 1 to 65535"),
                ("spec.overlay.underlay.peers[0].address", "10.90.0.1 is given twice"),
                ("spec.overlay.underlay.peers[0].ipv4", "10.120.1.0/25 is another node's slice"),
                ("spec.overlay.underlay.peers[1].address", "fd00::2 is of another family than this node's 10.90.0.1"),
                ("spec.overlay.underlay.peers[1].ipv4", "10.121.2.0/24 is no slice of the network's 10.120.0.0/16"),
                ("spec.overlay.vni", "0 must be 1 to 16777215"),
            ],
        ),
        (
            NetworkSpec(
                id=NETWORK,
                name="lan",
                macvlan=MacvlanLink(parent="eth0"),
                ipv4=SubnetSpec(gateway_mode=GatewayMode.ROUTED),
                ipv6=SubnetSpec(),
            ),
            [
                ("spec.ipv4.gateway_mode", "a macvlan network has no gateway of ours"),
                ("spec.ipv4.subnet", "a macvlan network needs the subnet of its link"),
                ("spec.ipv6.subnet", "a macvlan network needs the subnet of its link"),
            ],
        ),
    ],
)
async def test_every_broken_rule_is_named(host: FakeHost, spec: NetworkSpec, broken: list[tuple[str, str]]) -> None:
    async with host.executor() as executor:
        with pytest.raises(InvalidArgument) as caught:
            await network_create(executor.node, spec)
    found = sorted((one.field, one.description) for one in caught.value.violations)
    assert [field for field, _ in found] == [field for field, _ in broken]
    assert all(told.startswith(start) for (_, told), (_, start) in zip(found, broken, strict=True))


OVER = Underlay(local=ip_address("10.90.0.1"), version=1)
SPAN = NetworkSpec(
    id=NETWORK,
    name="wide",
    overlay=OverlayLink(vni=4096, port=4789, ipv4=WHOLE),
    underlay=OVER,
    ipv4=SubnetSpec(subnet=IPv4Network("10.120.1.0/24")),
)


async def test_peers_are_of_a_network_that_spans_nodes_and_have_slices_of_it(host: FakeHost) -> None:
    async with host.executor() as executor:
        for unknown in ("bridge", NETWORK):
            with pytest.raises(FailedPrecondition, match="there is no overlay network"):
                await overlay_peers_set(executor.node, unknown, OVER)
        await network_create(executor.node, SPAN)
        outside = Peer(address=ip_address("10.90.0.2"), ipv4=IPv4Network("192.168.0.0/24"))
        with pytest.raises(InvalidArgument, match=r"192\.168\.0\.0/24 is no slice of the network's 10\.120\.0\.0/16"):
            await overlay_peers_set(executor.node, NETWORK, replace(OVER, peers=(outside,)))


async def test_names_elsewhere_are_bounded_and_go_with_their_network(host: FakeHost) -> None:
    one = ContainerElsewhere(id="c1", names=("web",), addresses=("10.120.2.2",))
    async with host.executor() as executor:
        with pytest.raises(FailedPrecondition, match="there is no overlay network"):
            await names_elsewhere_set(executor.node, NETWORK, [one], version=1, renumbered=False)
        await network_create(executor.node, SPAN)
        assert await names_elsewhere_set(executor.node, NETWORK, [one], version=1, renumbered=False) == 1
        wrong = ContainerElsewhere(id="", names=("x" * 256,), addresses=("10.0.0.1/24",))
        with pytest.raises(InvalidArgument) as caught:
            await names_elsewhere_set(executor.node, NETWORK, [one, wrong], version=2, renumbered=False)
        fields = [violation.field for violation in caught.value.violations]
        assert fields == ["containers[1].container_id", "containers[1].names", "containers[1].addresses"]
        with pytest.raises(InvalidArgument, match="holds 20001, at most 20000 are possible"):
            await names_elsewhere_set(executor.node, NETWORK, [one] * 20_001, version=2, renumbered=False)
        await network_remove(executor.node, NETWORK)
        assert host.names_elsewhere.told == {}
