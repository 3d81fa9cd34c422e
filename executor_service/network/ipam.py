"""The arithmetic of address allocation: pure, no state of its own. Addresses are integers.

Allocation is serial: it goes on after the last address given, and comes back to a freed one only after a whole turn, so
that an address still in somebody's caches is not given to another container at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import merge
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network


@dataclass(frozen=True, slots=True)
class AddressPool:
    """A subnet's addresses for containers: those of `ip_range` but the network's own, the broadcast and `reserved`,
    among which is the gateway."""

    subnet: IPv4Network | IPv6Network
    ip_range: IPv4Network | IPv6Network
    reserved: frozenset[int]

    @property
    def first(self) -> int:
        return max(int(self.subnet.network_address) + 1, int(self.ip_range.network_address))

    @property
    def last(self) -> int:
        top = int(self.subnet.broadcast_address)
        return min(top - 1 if self.subnet.version == 4 else top, int(self.ip_range.broadcast_address))

    @property
    def capacity(self) -> int:
        return self.last - self.first + 1 - sum(self.first <= address <= self.last for address in self.reserved)

    @property
    def size(self) -> int:
        """Bytes of an address."""
        return self.subnet.max_prefixlen // 8

    def pack(self, address: int) -> bytes:
        """Big-endian bytes, which sort as the addresses do."""
        return address.to_bytes(self.size, "big")

    def gives(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether a container may ask for it: any of the subnet that is nobody's."""
        own = {self.subnet.network_address}
        if self.subnet.version == 4:
            own.add(self.subnet.broadcast_address)
        return address in self.subnet and address not in own and int(address) not in self.reserved


def next_free(pool: AddressPool, *, after: int | None, taken_from: Callable[[int], Iterable[int]]) -> int | None:
    """The first free address after `after` (the last one given), wrapping round; None when all are taken.

    `taken_from(low)` yields every taken address that is not below `low`, in ascending order, without repeats."""
    start = pool.first if after is None or not pool.first <= after < pool.last else after + 1

    def unavailable(low: int) -> Iterable[int]:
        return merge(taken_from(low), sorted(address for address in pool.reserved if address >= low))

    free = _first_gap(start, pool.last, unavailable(start))
    if free is None and start > pool.first:
        free = _first_gap(pool.first, start - 1, unavailable(pool.first))
    return free


def _first_gap(low: int, high: int, taken: Iterable[int]) -> int | None:
    candidate = low
    for address in taken:
        if address > candidate:
            break
        candidate = address + 1
    return candidate if candidate <= high else None


def free_subnet(
    base: IPv4Network | IPv6Network, *, prefix_length: int, taken: Iterable[IPv4Network | IPv6Network]
) -> IPv4Network | IPv6Network | None:
    """The lowest part of `base` with this prefix length that overlaps none of `taken`; None when there is none."""
    size = 1 << (base.max_prefixlen - prefix_length)
    candidate = int(base.network_address)
    for low, high in _spans(base, taken):
        if low >= candidate + size:
            break
        candidate = max(candidate, (high // size + 1) * size)
    if candidate + size - 1 > int(base.broadcast_address):
        return None
    return type(base)((candidate, prefix_length))


def _spans(base: IPv4Network | IPv6Network, taken: Iterable[IPv4Network | IPv6Network]) -> Sequence[tuple[int, int]]:
    return sorted(
        (int(one.network_address), int(one.broadcast_address))
        for one in taken
        if one.version == base.version and one.overlaps(base)
    )
