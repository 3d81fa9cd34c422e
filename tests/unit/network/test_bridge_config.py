from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from common.errors import InvalidArgument
from executor_service.network.config import BridgeConfig

GOOD = BridgeConfig(
    bridge="slipway0",
    table="slipway",
    ipv4_subnet=IPv4Network("172.30.0.0/16"),
    ipv6_subnet=IPv6Network("fd12:3456::/64"),
    run_directory=Path("/run/slipway/netns"),
    ipv4_base=IPv4Network("10.200.0.0/13"),
    ipv6_base=IPv6Network("fd12:3456::/48"),
)


def test_the_gateways_are_the_first_addresses() -> None:
    assert GOOD.gateways == ("172.30.0.1", "fd12:3456::1")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bridge", "a-name-of-16-char"),
        ("bridge", 'x" drop'),
        ("table", "t; flush ruleset"),
        ("ipv4_subnet", IPv4Network("10.0.0.0/31")),
        ("ipv6_subnet", IPv6Network("fd00::/127")),
        ("ipv6_subnet", IPv6Network("2001:db8::/64")),
        ("run_directory", Path("netns")),
        ("mtu", 1279),
        ("pool_size", -1),
    ],
)
def test_a_setting_that_cannot_work_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        replace(GOOD, **{field: value})
    assert [violation.field for violation in caught.value.violations] == [f"network.{field}"]
