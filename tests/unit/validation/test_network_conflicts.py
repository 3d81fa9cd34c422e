"""The conflicts of a container's network mode with what else it asks for: one case for each cell of the matrix."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from api_service.records.config import ContainerConfig, EndpointSettings, HostConfig, NetworkingConfig, PortBinding
from api_service.validation.container_create import normalise, validate_create, warnings
from api_service.validation.host_facts import any_host

_MODES = ("container:db", "host", "none", "bridge", "mynet")
_Asked = tuple[ContainerConfig, HostConfig, NetworkingConfig]


def _config(**fields: object) -> Callable[[str], _Asked]:
    return lambda mode: (
        ContainerConfig(image="busybox", **fields),  # type: ignore[arg-type]  # a field by its name
        HostConfig(network_mode=mode),
        NetworkingConfig(),
    )


def _host(**fields: object) -> Callable[[str], _Asked]:
    return lambda mode: (
        ContainerConfig(image="busybox"),
        HostConfig(network_mode=mode, **fields),  # type: ignore[arg-type]  # a field by its name
        NetworkingConfig(),
    )


def _endpoint(name: str = "", **fields: object) -> Callable[[str], _Asked]:
    return lambda mode: (
        ContainerConfig(image="busybox"),
        HostConfig(network_mode=mode),
        NetworkingConfig(endpoints={name or mode: EndpointSettings(**fields)}),  # type: ignore[arg-type]  # as above
    )


# What is asked for, the field that is named, and the modes that refuse it.
_ROWS: dict[str, tuple[Callable[[str], _Asked], str, tuple[str, ...]]] = {
    "hostname": (_config(hostname="web"), "config.hostname", ("container:db",)),
    "hostname in the node's UTS namespace": (
        lambda mode: (
            ContainerConfig(image="busybox", hostname="web"),
            HostConfig(network_mode=mode, uts_mode="host"),
            NetworkingConfig(),
        ),
        "config.hostname",
        _MODES,
    ),
    "exposed ports": (_config(exposed_ports=("80/tcp",)), "config.exposed_ports", ("container:db",)),
    "dns": (_host(dns=("10.0.0.1",)), "host_config.dns", ("container:db",)),
    "dns search": (_host(dns_search=("lan",)), "host_config.dns_search", ("container:db",)),
    "dns options": (_host(dns_options=("ndots:2",)), "host_config.dns_options", ("container:db",)),
    "extra hosts": (_host(extra_hosts=("a:10.0.0.1",)), "host_config.extra_hosts", ("container:db",)),
    "ports": (_host(port_bindings={"80/tcp": (PortBinding(),)}), "host_config.port_bindings", ("container:db",)),
    "all ports": (_host(publish_all_ports=True), "host_config.publish_all_ports", ("container:db",)),
    "mac address": (
        _endpoint(mac_address="02:42:ac:11:00:02"),
        "networking_config.endpoints_config",
        ("container:db", "host"),
    ),
    "fixed address": (
        _endpoint(ipv4_address="10.9.0.9"),
        "networking_config.endpoints_config",
        ("container:db", "host", "none", "bridge"),
    ),
    "aliases": (
        _endpoint(aliases=("db",)),
        "networking_config.endpoints_config",
        ("container:db", "host", "none", "bridge"),
    ),
    "fixed IPv6 address": (
        _endpoint(ipv6_address="fd00::9"),
        "networking_config.endpoints_config",
        ("container:db", "host", "none", "bridge"),
    ),
    "second network": (_endpoint("other"), "networking_config.endpoints_config", ("container:db", "host", "none")),
}


@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("row", _ROWS)
def test_each_cell_of_the_matrix(row: str, mode: str) -> None:
    ask, field, refusing = _ROWS[row]
    violations = validate_create(*ask(mode), any_host(""))
    if mode in refusing:
        assert violations
        assert all(violation.field.startswith(field) and violation.description for violation in violations)
    else:
        assert violations == []


# What is allowed and has no effect, in Docker silently.
_WITHOUT_EFFECT: dict[str, tuple[Callable[[str], _Asked], str, tuple[str, ...]]] = {
    "exposed ports": (_ROWS["exposed ports"][0], "config.exposed_ports", ("host", "none")),
    "ports": (_ROWS["ports"][0], "host_config.port_bindings", ("host", "none")),
    "all ports": (_ROWS["all ports"][0], "host_config.publish_all_ports", ("host", "none")),
    "mac address": (_ROWS["mac address"][0], "mac_address", ("none",)),
}


@pytest.mark.parametrize("mode", ["host", "none", "bridge", "mynet"])
@pytest.mark.parametrize("row", _WITHOUT_EFFECT)
def test_what_has_no_effect_in_a_mode_is_warned_of(row: str, mode: str) -> None:
    ask, field, modes = _WITHOUT_EFFECT[row]
    if mode in _ROWS[row][2]:
        return
    facts = any_host("")
    told = warnings(normalise("", *ask(mode), facts), facts)
    assert [one.startswith(f"{field} has no effect with network mode '{mode}'") for one in told if field in one] == (
        [True] if mode in modes else []
    )


def test_a_container_must_be_named_to_be_shared_with() -> None:
    [violation] = validate_create(
        ContainerConfig(image="busybox"), HostConfig(network_mode="container:"), NetworkingConfig(), any_host("")
    )
    assert violation.field == "host_config.network_mode"
