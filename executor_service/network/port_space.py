"""What this host has to publish ports on: its addresses, and the numbers that may be chosen. Blocks."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import randbelow

from common.errors import FailedPrecondition

_SYSCTLS = Path("/proc/sys/net/ipv4")
_FALLBACK_RANGE = (49153, 65535)  # Docker's, where the kernel tells none


def check_addresses(host_ips: Collection[str]) -> None:
    """Raises FailedPrecondition for one that the host does not have."""
    for host_ip in host_ips:
        family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((host_ip, 0))
            except OSError as error:
                raise FailedPrecondition(
                    f"{host_ip} is no address of this host ({error.strerror}); publish the port on one that it has",
                    resource_type="address",
                    resource_name=host_ip,
                    reason="NO_SUCH_ADDRESS",
                ) from error


def candidates() -> Iterator[int]:
    """The ports that the kernel gives to whoever asks for none, less the reserved ones, from a random one on."""
    low, high = _FALLBACK_RANGE
    reserved: set[int] = set()
    with suppress(OSError, ValueError):
        low, high = map(int, (_SYSCTLS / "ip_local_port_range").read_text().split())
    with suppress(OSError, ValueError):
        for part in (_SYSCTLS / "ip_local_reserved_ports").read_text().split(","):
            if part.strip():
                first, _, last = part.strip().partition("-")
                reserved.update(range(int(first), int(last or first) + 1))
    count = high - low + 1
    begin = randbelow(count)
    for step in range(count):
        number = low + (begin + step) % count
        if number not in reserved:
            yield number
