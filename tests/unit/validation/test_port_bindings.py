"""Published ports in a create request: every rule with its field and sentence, the normal form, what it expands to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from api_service.operations.published_ports import published_ports, validate_published_ports
from api_service.records.config import ContainerConfig, HostConfig, PortBinding
from api_service.validation.port_bindings import normalise_port_bindings, port_warnings, validate_port_bindings
from api_service.validation.ports import PortRange, without

Asked = Mapping[str, Sequence[tuple[str, str]]]


def bound(asked: Asked) -> dict[str, tuple[PortBinding, ...]]:
    return {
        port: tuple(PortBinding(host_ip=ip, host_port=number) for ip, number in places)
        for port, places in asked.items()
    }


def host_config(asked: Asked, *, mode: str = "bridge", publish_all: bool = False) -> HostConfig:
    return HostConfig(network_mode=mode, port_bindings=bound(asked), publish_all_ports=publish_all)


@pytest.mark.parametrize(
    ("asked", "field", "sentence"),
    [
        ({"http": [("", "")]}, '["http"]', "is not port or port/protocol"),
        ({"0": [("", "")]}, '["0"]', "outside the ports 1 to 65535"),
        ({"80/icmp": [("", "")]}, '["80/icmp"]', "names the protocol 'icmp'"),
        ({"80": [("", "x")]}, '["80"].bindings[0].host_port', "is not a port or a range"),
        ({"80": [("", ""), ("", "65536")]}, '["80"].bindings[1].host_port', "outside the ports 1 to 65535"),
        ({"80": [("", "90-80")]}, '["80"].bindings[0].host_port', "begins after its end"),
        ({"80": [("", "0-80")]}, '["80"].bindings[0].host_port', "a range begins at 1"),
        ({"80-82": [("", "90-91")]}, '["80-82"].bindings[0].host_port', "has 2 ports, 80-82/tcp has 3"),
        ({"80": [("host", "")]}, '["80"].bindings[0].host_ip', "is not an IP address"),
        ({"80": [("fe80::1%eth0", "")]}, '["80"].bindings[0].host_ip', "is an address of one link"),
        ({"80": [("::ffff:1.2.3.4", "")]}, '["80"].bindings[0].host_ip', "write 1.2.3.4"),
        ({"80/udp": [("::1", "")]}, '["80/udp"].bindings[0].host_ip', "publish it on 127.0.0.1"),
        ({"80": [("224.0.0.1", "")]}, '["80"].bindings[0].host_ip', "multicast"),
        ({"80": [("", "90")], "81": [("127.0.0.1", "90")]}, '["81"].bindings[0].host_port', "is bound by f.port_b"),
        ({"80-81": [("::", "90-91")], "82": [("", "91")]}, '["82"].bindings[0].host_port', "port 91/tcp of the host"),
        ({"1-16384": [("", "")], "20000": [("", "")]}, "", "16385 ports are more than the 16384"),
    ],
)
def test_each_rule(asked: Asked, field: str, sentence: str) -> None:
    [violation] = validate_port_bindings(host_config(asked), "f")
    assert violation.field == f"f.port_bindings{field}"
    assert sentence in violation.description


def test_everything_wrong_is_told_at_once() -> None:
    asked = host_config({"x": [("", "")], "80": [("y", "z")]}, mode="container:web", publish_all=True)
    assert [violation.field for violation in validate_port_bindings(asked, "f")] == [
        "f.publish_all_ports",
        "f.port_bindings",
        'f.port_bindings["x"]',
        'f.port_bindings["80"].bindings[0].host_ip',
        'f.port_bindings["80"].bindings[0].host_port',
    ]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"80": []},
        {"80/tcp": [("", "90")], "80/udp": [("", "90")]},
        {"80": [("127.0.0.1", "90"), ("127.0.0.2", "90"), ("::", "90")]},
        {"80": [("", "90-92")], "81": [("", "90-92")]},
        {"80-82/SCTP": [("0.0.0.0", "90-92")]},
    ],
)
def test_what_is_allowed(asked: Asked) -> None:
    assert validate_port_bindings(host_config(asked), "f") == []


def test_normal_form() -> None:
    asked = bound({"443": [], "80": [("", "8080")], "80/TCP": [("2001:DB8::0", "0")], "5-6/udp": [("", "007-008")]})
    normal = normalise_port_bindings(asked)
    assert normal == bound(
        {"5-6/udp": [("", "7-8")], "80/tcp": [("", "8080"), ("2001:db8::", "")], "443/tcp": [("", "")]}
    )
    assert list(normal) == ["5-6/udp", "80/tcp", "443/tcp"]
    assert normalise_port_bindings(normal) == normal


def test_ranges_are_taken_apart_and_exposed_ports_joined() -> None:
    host = host_config({"80-81/tcp": [("", "90-91")], "70/udp": [("127.0.0.1", "95-99")]}, publish_all=True)
    config = ContainerConfig(exposed_ports=("80/tcp", "69-70/udp"))
    found = [
        (port.host_ip, port.host_port, port.host_port_last, port.container_port, port.protocol)
        for port in published_ports(config, host)
    ]
    assert found == [
        ("", 90, 90, 80, "tcp"),
        ("", 91, 91, 81, "tcp"),
        ("127.0.0.1", 95, 99, 70, "udp"),
        ("", 0, 0, 69, "udp"),
    ]


def test_an_image_that_exposes_too_much_cannot_be_published_whole() -> None:
    config = ContainerConfig(exposed_ports=("1-65535/tcp",))
    [violation] = validate_published_ports(config, host_config({}, publish_all=True))
    assert violation.field == "host_config.publish_all_ports"
    assert "65535 ports would be published" in violation.description
    assert validate_published_ports(config, host_config({})) == []


@pytest.mark.parametrize(("mode", "count"), [("bridge", 0), ("mynet", 0), ("host", 2), ("none", 2)])
def test_modes_without_a_network_of_their_own_are_warned_of(mode: str, count: int) -> None:
    asked = host_config({"80": [("", "")]}, mode=mode, publish_all=True)
    assert len(port_warnings(asked)) == count
    assert bool(published_ports(ContainerConfig(), asked)) == (count == 0)


def test_a_range_without_some_of_its_ports() -> None:
    span = PortRange(first=1, last=9, protocol="tcp")
    left = [str(part) for part in without(span, {(1, "tcp"), (4, "tcp"), (5, "tcp"), (6, "udp"), (99, "tcp")})]
    assert left == ["2-3/tcp", "6-9/tcp"]
