"""MAC addresses: IEEE 802, bit 0 of the first octet set for groups, bit 1 for locally administered addresses."""

from __future__ import annotations

import re
import secrets

from common.errors import InvalidArgument, Violation

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def random_mac() -> str:
    """A random locally administered address of one interface."""
    octets = bytearray(secrets.token_bytes(6))
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


def checked_mac(mac_address: str) -> str:
    """The address in lower case; empty stays empty. Raises InvalidArgument when no interface can have it."""
    mac = mac_address.lower()
    if not mac:
        return mac
    if _MAC.fullmatch(mac) is None or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        rule = f"{mac_address!a} is no address an interface can have; give six hex octets such as 02:42:ac:11:00:02"
        raise InvalidArgument(violations=[Violation(field="mac_address", description=f"{rule}, the first one even")])
    return mac
