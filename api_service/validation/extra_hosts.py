"""Further lines for /etc/hosts: `name:address` or `name=address`, or the word `host-gateway` for the address."""

from __future__ import annotations

import re
from collections.abc import Sequence

from api_service.validation.addresses import parse_ip
from common.errors import Violation

HOST_GATEWAY = "host-gateway"
"""Stands for the addresses of the bridge on the node; the executor puts them in its place."""

# Underscores are no part of a DNS name, but many people's host files have them. Nothing else: a blank or a line end
# would write a line of its own into /etc/hosts.
_NAME = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?")


def parse_extra_host(entry: str) -> tuple[str, str]:
    """`(name, address)`; the address in its plain form or `host-gateway`. Raises ValueError with a sentence."""
    separator = "=" if "=" in entry else ":"
    name, found, address = entry.partition(separator)
    shown = repr(entry[:80])
    if not found or not name or not address:
        raise ValueError(f"{shown} is not name:address, like 'db:10.0.0.5' or 'gateway:{HOST_GATEWAY}'")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:64]!r} is not a host name: letters, digits, '.', '-' and '_', at most 253")
    if address == HOST_GATEWAY:
        return name, address
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if (parsed := parse_ip(address)) is None:
        raise ValueError(f"{address[:64]!r} in {shown} is neither an IPv4 or IPv6 address nor '{HOST_GATEWAY}'")
    return name, str(parsed)


def validate_extra_hosts(entries: Sequence[str], field: str) -> list[Violation]:
    violations = []
    for index, entry in enumerate(entries):
        try:
            parse_extra_host(entry)
        except ValueError as error:
            violations.append(Violation(field=f"{field}[{index}]", description=str(error)))
    return violations
