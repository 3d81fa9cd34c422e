"""What a network may be asked to be."""

from __future__ import annotations

from typing import Any

import pytest

from api_service.validation.networks import IpamConfig, NetworkRequest, subnets, validate_network

_V4 = IpamConfig(subnet="10.77.0.0/24")


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({}, []),
        ({"ipam": [_V4, IpamConfig(subnet="fd00:7::/64", gateway="fd00:7::1")]}, []),
        ({"name": "bridge"}, ["name"]),
        ({"name": "default"}, ["name"]),
        ({"driver": "overlay"}, ["driver"]),
        ({"ipam_driver": "dhcp"}, ["ipam.driver"]),
        ({"enable_ipv4": False, "enable_ipv6": False}, ["enable_ipv4"]),
        ({"ipam": [IpamConfig(gateway="10.77.0.1")]}, ["ipam.config[0].subnet"]),
        ({"ipam": [IpamConfig(subnet="10.77.0.1/24")]}, ["ipam.config[0].subnet"]),
        ({"ipam": [IpamConfig(subnet="10.77.0.0")]}, ["ipam.config[0].subnet"]),
        ({"ipam": [IpamConfig(subnet="10.77.0.0/31")]}, ["ipam.config[0].subnet"]),
        ({"ipam": [_V4, IpamConfig(subnet="10.78.0.0/24")]}, ["ipam.config[1].subnet"]),
        ({"ipam": [_V4], "enable_ipv4": False}, ["ipam.config[0].subnet"]),
        ({"ipam": [IpamConfig(subnet="10.77.0.0/24", gateway="10.78.0.1")]}, ["ipam.config[0].gateway"]),
        ({"ipam": [IpamConfig(subnet="10.77.0.0/24", gateway="10.77.0.255")]}, ["ipam.config[0].gateway"]),
        ({"ipam": [IpamConfig(subnet="10.77.0.0/24", ip_range="10.78.0.0/25")]}, ["ipam.config[0].ip_range"]),
        (
            {"ipam": [IpamConfig(subnet="10.77.0.0/24", aux_addresses={"x": "10.9.0.1"})]},
            ['ipam.config[0].aux_addresses["x"]'],
        ),
        ({"host_binding_ipv4": "::1"}, ["bridge.host_binding_ipv4"]),
        ({"name": "none", "driver": "x", "host_binding_ipv4": "y"}, ["name", "driver", "bridge.host_binding_ipv4"]),
    ],
)
def test_every_broken_rule_is_named(asked: dict[str, Any], fields: list[str]) -> None:
    violations = validate_network(NetworkRequest(**{"name": "back", **asked}))
    assert [violation.field for violation in violations] == fields
    assert all(violation.description for violation in violations)


def test_the_families_of_a_request() -> None:
    ipv4, ipv6 = subnets(NetworkRequest(name="back", ipam=[_V4]))
    assert ipv4 is not None
    assert ipv6 is not None
    assert (ipv4.subnet, ipv4.configured) == ("10.77.0.0/24", True)
    assert (ipv6.subnet, ipv6.configured) == ("", False)
    assert subnets(NetworkRequest(name="back", enable_ipv6=False))[1] is None
