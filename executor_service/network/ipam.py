"""The arithmetic of address allocation: pure, no state of its own. Addresses are integers.

Allocation is serial: it goes on after the last address given, and comes back to a freed one only after a whole turn, so
that an address still in somebody's caches is not given to another container at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


@dataclass(frozen=True, slots=True)
class AddressPool:
    """A subnet's addresses for containers: not the network's own, not the gateway's (the first), not the broadcast."""

    subnet: IPv4Network | IPv6Network

    @property
    def gateway(self) -> IPv4Address | IPv6Address:
        return self.subnet.network_address + 1

    @property
    def first(self) -> int:
        return int(self.gateway) + 1

    @property
    def last(self) -> int:
        top = int(self.subnet.broadcast_address)
        return top - 1 if self.subnet.version == 4 else top

    @property
    def capacity(self) -> int:
        return self.last - self.first + 1

    def pack(self, address: int) -> bytes:
        """Big-endian bytes, which sort as the addresses do."""
        return address.to_bytes(self.subnet.max_prefixlen // 8, "big")


def next_free(pool: AddressPool, *, after: int | None, taken_from: Callable[[int], Iterable[int]]) -> int | None:
    """The first free address after `after` (the last one given), wrapping round; None when all are taken.

    `taken_from(low)` yields every taken address that is not below `low`, in ascending order, without repeats."""
    start = pool.first if after is None or not pool.first <= after < pool.last else after + 1
    free = _first_gap(start, pool.last, taken_from(start))
    if free is None and start > pool.first:
        free = _first_gap(pool.first, start - 1, taken_from(pool.first))
    return free


def _first_gap(low: int, high: int, taken: Iterable[int]) -> int | None:
    candidate = low
    for address in taken:
        if address != candidate:
            break
        candidate += 1
    return candidate if candidate <= high else None
