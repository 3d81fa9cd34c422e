"""What a network may be asked to be."""

from __future__ import annotations

from typing import Any

import pytest

from api_service.records.network import GatewayMode, Macvlan
from api_service.validation.ipam import IpamConfig
from api_service.validation.networks import NetworkRequest, OverlayRequest, network_warnings, subnets, validate_network

_V4 = IpamConfig(subnet="10.77.0.0/24")
_ISOLATED = GatewayMode.ISOLATED
_LAN: dict[str, Any] = {
    "driver": "macvlan",
    "macvlan": Macvlan(parent="eth0.10"),
    "ipam": [_V4],
    "enable_ipv6": False,
}


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({}, []),
        ({"ipam": [_V4, IpamConfig(subnet="fd00:7::/64", gateway="fd00:7::1")]}, []),
        ({"name": "bridge"}, ["name"]),
        ({"name": "default"}, ["name"]),
        ({"driver": "overlay"}, []),
        (
            {"driver": "overlay", "ipam": [IpamConfig(subnet="10.77.0.0/24", gateway="10.77.0.1")]},
            ["ipam.config[0].gateway"],
        ),
        ({"driver": "overlay", "ipam": [IpamConfig(subnet="10.77.0.0/30")]}, ["ipam.config"]),
        ({"driver": "overlay", "overlay": OverlayRequest(slice_prefix_ipv4=18)}, ["overlay.slice_prefix_ipv4"]),
        ({"driver": "overlay", "overlay": OverlayRequest(slice_prefix_ipv6=127)}, ["overlay.slice_prefix_ipv6"]),
        ({"driver": "overlay", "macvlan": Macvlan(parent="eth0")}, ["macvlan"]),
        ({"overlay_given": True}, ["overlay"]),
        ({"driver": "ipvlan"}, ["driver"]),
        ({**_LAN}, []),
        ({**_LAN, "ipam": [_V4, IpamConfig(subnet="fd00:7::/64")], "enable_ipv6": True}, []),
        ({**_LAN, "macvlan": None}, ["macvlan.parent"]),
        ({**_LAN, "macvlan": Macvlan(parent="../eth0")}, ["macvlan.parent"]),
        ({**_LAN, "macvlan": Macvlan(parent="")}, ["macvlan.parent"]),
        ({**_LAN, "macvlan": Macvlan(parent="eth0" * 4)}, ["macvlan.parent"]),
        ({**_LAN, "bridge_given": True}, ["bridge"]),
        ({**_LAN, "ipam": []}, ["ipam.config"]),
        ({**_LAN, "enable_ipv6": True}, ["ipam.config"]),
        ({"macvlan": Macvlan(parent="eth0")}, ["macvlan"]),
        ({"internal": True, "gateway_mode_ipv4": _ISOLATED, "gateway_mode_ipv6": _ISOLATED}, []),
        ({"gateway_mode_ipv4": _ISOLATED}, ["bridge.gateway_mode_ipv4"]),
        ({"gateway_mode_ipv6": _ISOLATED}, ["bridge.gateway_mode_ipv6"]),
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


def test_ipvlan_is_refused_with_what_to_use_instead() -> None:
    (violation,) = validate_network(NetworkRequest(name="back", driver="ipvlan"))
    assert violation.description == (
        "'ipvlan' is not supported, whose containers share their parent's hardware address; use 'macvlan', which gives "
        "each its own, or 'bridge'"
    )


@pytest.mark.parametrize(
    ("asked", "warned"),
    [
        ({}, []),
        ({"gateway_mode_ipv4": GatewayMode.ROUTED}, []),
        ({"internal": True}, []),
        ({**_LAN, "internal": True}, ["internal"]),
        ({"internal": True, "host_binding_ipv4": "127.0.0.1"}, ["bridge.host_binding_ipv4"]),
        ({"internal": True, "gateway_mode_ipv6": GatewayMode.ROUTED}, ["bridge.gateway_mode_ipv6"]),
        ({"enable_ipv4": False, "gateway_mode_ipv4": GatewayMode.ROUTED}, ["bridge.gateway_mode_ipv4"]),
    ],
)
def test_what_has_no_effect_is_told(asked: dict[str, Any], warned: list[str]) -> None:
    request = NetworkRequest(**{"name": "back", **asked})
    assert validate_network(request) == []
    assert [warning.split(" ", 1)[0] for warning in network_warnings(request)] == warned


def test_the_families_of_a_request() -> None:
    ipv4, ipv6 = subnets(NetworkRequest(name="back", ipam=[_V4]))
    assert ipv4 is not None
    assert ipv6 is not None
    assert (ipv4.subnet, ipv4.configured) == ("10.77.0.0/24", True)
    assert (ipv6.subnet, ipv6.configured) == ("", False)
    assert subnets(NetworkRequest(name="back", enable_ipv6=False))[1] is None


@pytest.mark.parametrize(
    ("subnet", "purpose"),
    [
        ("127.9.0.0/24", "127.0.0.0/8, which is set apart for loopback"),
        ("169.254.7.0/24", "169.254.0.0/16, which is set apart for link-local addresses"),
        ("224.1.0.0/16", "224.0.0.0/4, which is set apart for multicast"),
        ("240.0.0.0/24", "240.0.0.0/4, which is set apart for no use yet and broadcast"),
        ("0.1.0.0/16", "0.0.0.0/8, which is set apart for this host"),
        ("::/64", "::/127, which is set apart for loopback and no address"),
        ("::ffff:10.0.0.0/120", "::ffff:0:0/96, which is set apart for IPv4 addresses written as IPv6"),
        ("fe80::/64", "fe80::/10, which is set apart for link-local addresses"),
        ("ff05::/64", "ff00::/8, which is set apart for multicast"),
    ],
)
def test_subnets_that_are_set_apart(subnet: str, purpose: str) -> None:
    [violation, *_] = validate_network(NetworkRequest(name="back", ipam=[IpamConfig(subnet=subnet)]))
    assert violation.field == "ipam.config[0].subnet"
    assert f"overlaps {purpose}; use one of 10.0.0.0/8" in violation.description


def test_a_subnet_over_everything_is_told_all_that_it_covers() -> None:
    violations = validate_network(NetworkRequest(name="back", ipam=[IpamConfig(subnet="0.0.0.0/0")]))
    assert [violation.field for violation in violations] == ["ipam.config[0].subnet"] * 5


@pytest.mark.parametrize(
    ("config", "field", "sentence"),
    [
        ({"gateway": "10.77.0.0"}, "gateway", "is the address of 10.77.0.0/24 itself"),
        ({"gateway": "10.77.0.255"}, "gateway", "is the broadcast address of 10.77.0.0/24"),
        ({"gateway": "10.78.0.1"}, "gateway", "is not an address of 10.77.0.0/24"),
        ({"gateway": "fd00::1"}, "gateway", "is not an address of 10.77.0.0/24"),
        ({"gateway": "10.77.0.1/24"}, "gateway", "without a prefix length"),
        ({"aux_addresses": {"x": "10.77.0.0"}}, 'aux_addresses["x"]', "is the address of 10.77.0.0/24 itself"),
        ({"aux_addresses": {"x": "10.77.0.255"}}, 'aux_addresses["x"]', "is the broadcast address"),
        (
            {"gateway": "10.77.0.9", "aux_addresses": {"x": "10.77.0.9"}},
            'aux_addresses["x"]',
            "10.77.0.9 is the gateway already",
        ),
        (
            {"aux_addresses": {"y": "10.77.0.9", "x": "10.77.0.9"}},
            'aux_addresses["y"]',
            '10.77.0.9 is the auxiliary address "x" already',
        ),
        ({"ip_range": "10.77.0.0/16"}, "ip_range", "is not a part of 10.77.0.0/24"),
        ({"ip_range": "fd00::/120"}, "ip_range", "is not a part of 10.77.0.0/24"),
    ],
)
def test_what_a_subnet_cannot_give(config: dict[str, Any], field: str, sentence: str) -> None:
    asked = IpamConfig(subnet="10.77.0.0/24", **config)
    [violation] = validate_network(NetworkRequest(name="back", ipam=[asked]))
    assert violation.field == f"ipam.config[0].{field}"
    assert sentence in violation.description


def test_the_last_address_of_an_ipv6_subnet_is_like_any_other() -> None:
    asked = IpamConfig(subnet="fd00:7::/64", gateway="fd00:7::ffff:ffff:ffff:ffff")
    assert validate_network(NetworkRequest(name="back", ipam=[asked])) == []
