"""On which node each container is: of the records no more than that is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from api_service.records.codec import Codec
from api_service.store.store import Entry, Store

_PREFIX = "containers/"
_AT_ONCE = 200  # entries


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """Of a container's record."""

    node: str


class ContainerPlaces:
    """Raises what the store raises."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._codec = Codec(_Placed)

    async def follow(self) -> AsyncGenerator[Mapping[str, str | None]]:
        """The node of every container, of whatever phase, and then of each that came, moved or went (None), without
        end."""
        revision = await self._store.revision()
        found: dict[str, str | None] = {}
        for index, entry in enumerate(await self._store.list(_PREFIX)):
            found.update(self._place(entry))
            if index % _AT_ONCE == 0:
                await asyncio.sleep(0)  # there may be tens of thousands
        yield found
        async for change in self._store.watch(_PREFIX, after=revision):
            if change.value is None:
                yield {change.key.removeprefix(_PREFIX): None}
            else:
                yield self._place(Entry(key=change.key, value=change.value, revision=change.revision))

    def _place(self, entry: Entry) -> Mapping[str, str | None]:
        return {entry.key.removeprefix(_PREFIX): placed.node for placed in self._codec.readable([entry])}
