"""IP and hardware addresses as text."""

from __future__ import annotations

import ipaddress
import re

from common.errors import Violation

_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")
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
    """The kernel's own rule for an interface: not multicast, not zero."""
    shown = repr(text[:64])
    if not _MAC.fullmatch(text):
        why = f"{shown} is not a hardware address: write six hex pairs with colons, like 02:42:ac:11:00:02"
    elif int(text[:2], 16) & 1:
        why = f"{shown} is a multicast address; an interface needs an even first pair, like 02"
    elif text == _NO_MAC:
        why = f"{shown} means no address; leave the field empty to get one chosen"
    else:
        return []
    return [Violation(field=field, description=why)]
