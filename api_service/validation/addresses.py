"""IP and hardware addresses as text."""

from __future__ import annotations

import ipaddress

from common.errors import Violation

_NO_MAC = "00:00:00:00:00:00"


def parse_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """None when `text` is no address. An address with a zone (`fe80::1%eth0`) is none: a zone means something on one
    machine only, and the library lets any character stand in it, line ends too."""
    if "%" in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def validate_ipv4(text: str, field: str) -> list[Violation]:
    if isinstance(parse_ip(text), ipaddress.IPv4Address):
        return []
    return [Violation(field=field, description=f"{text[:64]!r} is not an IPv4 address like 172.20.0.5")]


def validate_ipv6(text: str, field: str) -> list[Violation]:
    address = parse_ip(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return []
    return [Violation(field=field, description=f"{text[:64]!r} is not an IPv6 address like fd00::5")]


def validate_mac(text: str, field: str) -> list[Violation]:
    """An interface cannot have the address of none; how one is written is the protocol's rule."""
    if text != _NO_MAC:
        return []
    return [Violation(field=field, description=f"{text} means no address; leave the field empty to get one chosen")]
