"""Network modes and the conflict matrix."""

from __future__ import annotations

import pytest

from api_service.records.config import ContainerConfig, EndpointSettings, HostConfig
from api_service.validation.network_mode import (
    normalise_network,
    validate_endpoints,
    validate_network_mode,
    validate_shared_network,
)


@pytest.mark.parametrize(
    ("mode", "meaning"),
    [
        *(("", "bridge"), ("default", "bridge"), ("bridge", "bridge"), ("host", "host"), ("none", "none")),
        *((mode, mode) for mode in ("mynet", "my.net_1", "a" * 64, "container:abc", "container:/web")),
    ],
)
def test_modes(mode: str, meaning: str) -> None:
    assert normalise_network(mode) == meaning
    assert validate_network_mode(mode, "f") == []


@pytest.mark.parametrize("mode", ["container:", "container:a b", "bridge ", "../x", "a:b", "-x", "x" * 129])
def test_modes_that_are_refused_name_what_there_is(mode: str) -> None:
    [violation] = validate_network_mode(mode, "host_config.network_mode")
    assert violation.field == "host_config.network_mode"
    assert repr(mode[:80]) in violation.description
    assert "give 'bridge', 'host', 'none', 'container:<name or id>', or the name or id" in violation.description


_E = EndpointSettings
_MAC = "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    ("mode", "endpoints", "fields"),
    [
        ("", {}, []),
        ("", {"bridge": _E()}, []),
        ("bridge", {"default": _E()}, []),
        ("default", {"bridge": _E(mac_address=_MAC)}, []),
        ("none", {"none": _E(mac_address=_MAC)}, []),
        ("host", {"host": _E()}, []),
        # one row of the matrix each
        ("bridge", {"bridge": _E(ipv4_address="172.17.0.9")}, ['["bridge"].ipv4_address']),
        ("bridge", {"bridge": _E(ipv6_address="fd00::9")}, ['["bridge"].ipv6_address']),
        ("bridge", {"bridge": _E(aliases=("db",))}, ['["bridge"].aliases']),
        ("bridge", {"default": _E(aliases=("db",))}, ['["default"].aliases']),
        ("none", {"none": _E(ipv4_address="172.17.0.9")}, ['["none"].ipv4_address']),
        ("host", {"host": _E(aliases=("db",))}, ['["host"].aliases']),
        ("host", {"host": _E(mac_address=_MAC)}, ['["host"].mac_address']),
        ("bridge", {"bridge": _E(mac_address="00:00:00:00:00:00")}, ['["bridge"].mac_address']),
        # both faults of one value
        ("bridge", {"bridge": _E(ipv4_address="fd00::9")}, ['["bridge"].ipv4_address'] * 2),
        # further networks
        ("bridge", {"bridge": _E(), "mynet": _E(aliases=("db",), ipv4_address="10.9.0.9")}, []),
        ("mynet", {"bridge": _E(), "other": _E(gw_priority=5)}, []),
        ("mynet", {"none": _E()}, ['["none"]']),
        ("mynet", {"mynet": _E(aliases=("a b",))}, ['["mynet"].aliases[0]']),
        ("mynet", {"mynet": _E(aliases=("a",) * 257)}, ['["mynet"].aliases']),
        ("mynet", {f"n{number}": _E() for number in range(65)}, [""]),
        ("container:x", {"mynet": _E()}, ['["mynet"]']),
        ("none", {"mynet": _E()}, ['["mynet"]']),
        ("bridge", {"bridge": _E(), "default": _E()}, ['["default"]']),
        ("host", {"host": _E(), "bridge": _E()}, ['["bridge"]']),
        ("none", {"bridge": _E()}, ['["bridge"]']),
        ("bridge", {"host": _E()}, ['["host"]']),
        ("bridge", {"": _E()}, ['[""]']),
        ("mynet", {"mynet": _E(aliases=("db",), ipv4_address="10.9.0.9")}, []),
        (
            "mynet",
            {"mynet": _E(ipv4_address="nonsense", mac_address="00:00:00:00:00:00")},
            ['["mynet"].ipv4_address', '["mynet"].mac_address'],
        ),
        ("bridge", {'a"b': _E()}, ['["a\\"b"]']),
    ],
)
def test_endpoints(mode: str, endpoints: dict[str, EndpointSettings], fields: list[str]) -> None:
    violations = validate_endpoints(endpoints, mode, "e")
    assert [violation.field for violation in violations] == [f"e{field}" for field in fields]
    assert all(violation.description for violation in violations)


def test_what_a_shared_network_cannot_have_is_told_all_at_once() -> None:
    config = ContainerConfig(image="busybox", hostname="web", exposed_ports=("80",))
    host = HostConfig(dns=("10.0.0.1",), dns_search=("x",), dns_options=("y",), extra_hosts=("a:10.0.0.1",))
    violations = validate_shared_network(config, host, network_mode="container:db")
    assert [violation.field for violation in violations] == [
        "config.hostname",
        "config.exposed_ports",
        "host_config.dns",
        "host_config.dns_search",
        "host_config.dns_options",
        "host_config.extra_hosts",
    ]
    assert validate_shared_network(config, host, network_mode="mynet") == []
