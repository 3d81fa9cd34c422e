"""What the executor refuses of a network by itself, whoever asks."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest

from common.errors import InvalidArgument
from executor_service.network.network import GatewayMode, MacvlanLink, NetworkSpec, SubnetSpec
from executor_service.operations.network_store import network_create
from tests.fixtures.executor_fakes import FakeHost

NETWORK = "ab" * 32
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
