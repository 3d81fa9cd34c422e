"""What an update makes of the published ports a container has."""

from __future__ import annotations

import pytest

from api_service.records.config import HostConfig, PortBinding
from api_service.validation.port_changes import (
    PortChanges,
    changed_ports,
    normalise_port_changes,
    port_change_warnings,
    validate_port_changes,
)

Shown = dict[str, list[tuple[str, str]]]


def bindings(ports: Shown) -> dict[str, tuple[PortBinding, ...]]:
    return {
        port: tuple(PortBinding(host_ip=host_ip, host_port=number) for host_ip, number in places)
        for port, places in ports.items()
    }


def changes(ports: Shown | None = None, *unpublish: str, publish_all: bool | None = None) -> PortChanges:
    return PortChanges(port_bindings=bindings(ports or {}), unpublish=unpublish, publish_all_ports=publish_all)


def host(ports: Shown, *, mode: str = "bridge", publish_all: bool = False) -> HostConfig:
    return HostConfig(network_mode=mode, port_bindings=bindings(ports), publish_all_ports=publish_all)


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        (
            {"80/tcp": [("", "8080")]},
            changes({"81": [("", "8081")]}),
            {"80/tcp": [("", "8080")], "81/tcp": [("", "8081")]},
        ),
        ({"80/tcp": [("", "8080"), ("::", "8081")]}, changes({"80": []}), {"80/tcp": [("", "")]}),
        ({"80/tcp": [("", "8080")], "80/udp": [("", "8080")]}, changes({}, "80"), {"80/udp": [("", "8080")]}),
        ({"80/tcp": [("", "8080")]}, changes({}, "81", "1-65535/sctp"), {"80/tcp": [("", "8080")]}),
        (
            {"1000-1009/tcp": [("", "2000-2009"), ("127.0.0.1", "")]},
            changes({"1004": [("", "99")]}, "1000", "1008-1020"),
            {
                "1001-1003/tcp": [("", "2001-2003"), ("127.0.0.1", "")],
                "1004/tcp": [("", "99")],
                "1005-1007/tcp": [("", "2005-2007"), ("127.0.0.1", "")],
            },
        ),
        ({"80/tcp": [("", "8000-8010")]}, changes({"81": []}), {"80/tcp": [("", "8000-8010")], "81/tcp": [("", "")]}),
    ],
)
def test_what_is_named_is_published_as_said_and_the_rest_stays(before: Shown, asked: PortChanges, after: Shown) -> None:
    changed = changed_ports(host(before), asked)
    assert validate_port_changes(changed, asked, ()) == []
    normal = normalise_port_changes(changed)
    assert normal.port_bindings == bindings(after)
    repeated = normalise_port_changes(changed_ports(normal, asked))
    assert repeated == normal


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        (
            changes({"x": [], "80": [("nowhere", "0-1")]}, "y"),
            [
                'port_bindings["x"]',
                'port_bindings["80"].bindings[0].host_ip',
                'port_bindings["80"].bindings[0].host_port',
                "unpublish[0]",
            ],
        ),
        (changes({"90": [("", "8080")]}), ['port_bindings["90"].bindings[0].host_port']),
        (changes({"80": []}, "79-81"), ["unpublish[0]"]),
        (changes({}, "81", publish_all=True), ["unpublish[0]"]),
    ],
)
def test_rules(asked: PortChanges, fields: list[str]) -> None:
    changed = changed_ports(host({"10/tcp": [("", "8080")]}), asked)
    assert [violation.field for violation in validate_port_changes(changed, asked, ["81-82/tcp"])] == fields


def test_who_shares_a_network_publishes_nothing() -> None:
    asked = changes({"80": []}, publish_all=True)
    changed = changed_ports(host({}, mode="container:web"), asked)
    assert [violation.field for violation in validate_port_changes(changed, asked, ())] == [
        "publish_all_ports",
        "port_bindings",
    ]


def test_what_has_no_effect_is_told() -> None:
    assert list(port_change_warnings(host({"80/tcp": []}), changes({}, "79-80", "81"))) == [
        "unpublish: port 81 is not published."
    ]
    [warning] = port_change_warnings(host({}, mode="host"), changes({"80": []}))
    assert warning == "port_bindings has no effect with network mode 'host'."


def test_all_ports_there_are_cost_little() -> None:
    """A few words of a request can name all of them, many times."""
    many = changes({}, *(f"{first}-65535" for first in range(1, 1025)))
    changed = changed_ports(host({"80/tcp": [("", "8080")]}), many)
    assert (changed.port_bindings, validate_port_changes(changed, many, ["1-65535/tcp"])) == ({}, [])
