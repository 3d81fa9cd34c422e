"""Exposed ports."""

from __future__ import annotations

import pytest

from api_service.validation.ports import normalise_exposed_ports, validate_exposed_ports


@pytest.mark.parametrize(
    ("specs", "ports"),
    [
        ((), ()),
        (("80",), ("80/tcp",)),
        (("80/tcp", "80", "80/TCP", "080"), ("80/tcp",)),
        (("53/udp", "53/tcp", "5/sctp"), ("5/sctp", "53/tcp", "53/udp")),
        (("80", "81"), ("80/tcp", "81/tcp")),
        (("8000-8002/udp", "8001/udp"), ("8000-8002/udp",)),
        (("10-30", "20-40", "40-41", "43", "15"), ("10-41/tcp", "43/tcp")),
        (("10-30/tcp", "20-40/udp"), ("10-30/tcp", "20-40/udp")),
        (("65535",), ("65535/tcp",)),
        (("7-7",), ("7/tcp",)),
    ],
)
def test_normal_form(specs: tuple[str, ...], ports: tuple[str, ...]) -> None:
    assert validate_exposed_ports(specs, "f") == []
    assert normalise_exposed_ports(specs) == ports


@pytest.mark.parametrize(
    "spec",
    ["", "/", "/tcp", "80/", "80/icmp", "0", "0/tcp", "65536", "99999", "100000", "80-", "-80", "90-80", "1-65536",
     "80/tcp/udp", "http", "80 ", "80\n", "8080:80", "127.0.0.1::80", "+80", "٨٠"],
)  # fmt: skip
def test_refusals(spec: str) -> None:
    violations = validate_exposed_ports(["80", spec], "config.exposed_ports")
    assert [violation.field for violation in violations] == ["config.exposed_ports[1]"]


def test_many_wide_ranges_cost_little() -> None:
    assert normalise_exposed_ports(["1-65535/tcp", "1-65535/udp", "1-65535"] * 1000) == ("1-65535/tcp", "1-65535/udp")
