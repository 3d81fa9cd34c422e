"""IP and hardware addresses, /etc/hosts and resolv.conf entries: nothing may smuggle a line into a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_service.validation.addresses import validate_ipv4, validate_ipv6, validate_mac
from api_service.validation.extra_hosts import parse_extra_host, validate_extra_hosts
from api_service.validation.name_resolution import validate_dns, validate_dns_options, validate_dns_search


@pytest.mark.parametrize(
    ("text", "is_ipv4", "is_ipv6"),
    [
        ("10.0.0.5", True, False),
        ("fd00::5", False, True),
        ("::ffff:10.0.0.5", False, False),
        ("fe80::1%eth0", False, False),
        ("10.0.0.256", False, False),
        ("010.0.0.1", False, False),
        ("10.0.0.5/24", False, False),
        ("10.0.0", False, False),
        (" 10.0.0.5", False, False),
        ("10.0.0.5\n", False, False),
        ("host", False, False),
        ("", False, False),
    ],
)
def test_ip_addresses(text: str, is_ipv4: bool, is_ipv6: bool) -> None:
    assert (validate_ipv4(text, "f") == []) == is_ipv4
    assert (validate_ipv6(text, "f") == []) == is_ipv6


@pytest.mark.parametrize("text", ["02:42:ac:11:00:02", "02:42:AC:11:00:02", "fe:ff:ff:ff:ff:ff"])
def test_hardware_addresses_that_are_fine(text: str) -> None:
    assert validate_mac(text, "f") == []


def test_hardware_address_of_no_interface() -> None:
    [violation] = validate_mac("00:00:00:00:00:00", "f")
    assert "no address" in violation.description


@pytest.mark.parametrize(
    ("entry", "parsed"),
    [
        ("db:10.0.0.5", ("db", "10.0.0.5")),
        ("db=10.0.0.5", ("db", "10.0.0.5")),
        ("db:fd00::5", ("db", "fd00::5")),
        ("db=fd00::5", ("db", "fd00::5")),
        ("db:[fd00::5]", ("db", "fd00::5")),
        ("db=[fd00::5]", ("db", "fd00::5")),
        ("db:FD00:0::5", ("db", "fd00::5")),
        ("host.docker.internal:host-gateway", ("host.docker.internal", "host-gateway")),
        ("my_db.example:1.2.3.4", ("my_db.example", "1.2.3.4")),
    ],
)
def test_extra_hosts(entry: str, parsed: tuple[str, str]) -> None:
    assert parse_extra_host(entry) == parsed
    assert validate_extra_hosts([entry], "f") == []


@pytest.mark.parametrize(
    "entry",
    [
        "", ":", "=", "db", "db:", "db=", ":10.0.0.5", "=10.0.0.5", "db:10.0.0.999", "db:10.0.0.5:80", "db:[fd00::5",
        "db:fd00::5]", "db:[]", "db:name", "db host:10.0.0.5", "db\t10.0.0.6:10.0.0.5", "db:10.0.0.5\n6.6.6.6 bank",
        "bank\n6.6.6.6:10.0.0.5", "db:fe80::1%eth0", "db:fe80::1%\n6.6.6.6 bank", "db:[fe80::1%\n6.6.6.6 bank]",
        "#:1.1.1.1", "-db:1.1.1.1", "db:HOST-GATEWAY", "a" * 254 + ":1.1.1.1",
    ],
)  # fmt: skip
def test_extra_hosts_that_are_refused(entry: str) -> None:
    violations = validate_extra_hosts(["ok:1.1.1.1", entry], "host_config.extra_hosts")
    assert [violation.field for violation in violations] == ["host_config.extra_hosts[1]"]
    assert len(violations[0].description) < 300


@given(st.text(max_size=12), st.text(max_size=40))
def test_no_extra_host_makes_two_words_or_lines(name: str, address: str) -> None:
    try:
        parsed = parse_extra_host(f"{name}:{address}")
    except ValueError:
        return
    assert all(len(part.split()) == 1 and "#" not in part for part in parsed)


def test_dns() -> None:
    assert validate_dns(["10.0.0.1", "fd00::1"], "f") == []
    violations = validate_dns(["10.0.0.1", "resolver", "fe80::1%\noptions", ""], "host_config.dns")
    assert [violation.field for violation in violations] == [f"host_config.dns[{index}]" for index in (1, 2, 3)]


@pytest.mark.parametrize(
    ("domains", "bad"),
    [
        ((), []),
        (("example.org", "local", "_tcp.local", "example.org."), []),
        ((".",), []),
        ((".", "example.org"), [0]),
        (("", "a b", "a\nb", "-a", "a" * 255), [0, 1, 2, 3, 4]),
    ],
)
def test_dns_search(domains: tuple[str, ...], bad: list[int]) -> None:
    violations = validate_dns_search(domains, "f")
    assert [violation.field for violation in violations] == [f"f[{index}]" for index in bad]


@pytest.mark.parametrize(("option", "fine"), [
    ("ndots:2", True), ("rotate", True), ("edns0", True), ("single-request", True), ("", False), ("ndots:", False),
    ("ndots:x", False), ("a b", False), ("a\nnameserver 6.6.6.6", False),
])  # fmt: skip
def test_dns_options(option: str, fine: bool) -> None:
    assert (validate_dns_options([option], "f") == []) == fine
