"""What containers have booked of a node: `node-usage/<node>`, written in the commits of the containers that book.

Whoever books compares the entry with what it has seen, so two replicas cannot give the same room away twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api_service.records.codec import Codec, Stored
from api_service.store.store import Put, RevisionConflict, Store

_PREFIX = "node-usage/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What one container has booked. `memory` in bytes; `ports`: `PORT/PROTOCOL ADDRESS`, the address empty for all."""

    memory: int = 0
    nano_cpus: int = 0
    ports: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.memory or self.nano_cpus or self.ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUsage:
    """The sum of all bookings."""

    memory: int = 0
    nano_cpus: int = 0
    ports: tuple[str, ...] = ()

    def plus(self, booking: Booking) -> NodeUsage:
        return NodeUsage(
            memory=self.memory + booking.memory,
            nano_cpus=self.nano_cpus + booking.nano_cpus,
            ports=(*self.ports, *booking.ports),
        )

    def minus(self, booking: Booking) -> NodeUsage:
        left = list(self.ports)
        for port in booking.ports:
            if port in left:
                left.remove(port)
        return NodeUsage(
            memory=max(self.memory - booking.memory, 0),
            nano_cpus=max(self.nano_cpus - booking.nano_cpus, 0),
            ports=tuple(left),
        )


NOTHING = Stored(record=NodeUsage(), revision=0)


class NodeUsages:
    """Every method raises what the store raises."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._codec = Codec(NodeUsage)
        self._decoded: dict[str, int] = {}  # revisions
        self._usages: dict[str, NodeUsage] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def get(self, node: str) -> Stored[NodeUsage]:
        entry = await self._store.get(_key(node))
        return self._codec.decode(entry) if entry is not None else NOTHING

    async def all(self) -> Mapping[str, NodeUsage]:
        """By node, of those where something was ever booked and that can be read: no entry is removed, and only what is
        new is decoded. Who books on another one is told."""
        for entry in await self._store.list(_PREFIX):
            if self._decoded.get(entry.key) != entry.revision:
                self._decoded[entry.key] = entry.revision
                for usage in self._codec.each_readable([entry]):
                    self._usages[entry.key.removeprefix(_PREFIX)] = usage
        return self._usages

    @asynccontextmanager
    async def turn(self, node: str) -> AsyncIterator[None]:
        """Those of one process that change one node's usage queue up, instead of losing against each other."""
        async with self._turns.setdefault(node, asyncio.Lock()):
            yield

    def put(self, node: str, before: Stored[NodeUsage], after: NodeUsage) -> Put:
        return Put(key=_key(node), value=self._codec.encode(after), expected_revision=before.revision)

    async def released(self, node: str, booking: Booking) -> list[Put]:
        """What the commit that ends a container has to write besides."""
        if not booking:
            return []
        before = await self.get(node)
        return [self.put(node, before, before.record.minus(booking))]

    @staticmethod
    def held_usage(conflict: RevisionConflict) -> bool:
        """Whether a commit failed because somebody else booked or released."""
        return conflict.key.startswith(_PREFIX)


def _key(node: str) -> str:
    return f"{_PREFIX}{node}"
