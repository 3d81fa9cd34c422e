"""How far each node's journal has been followed: `node-cursors/<node>`."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from api_service.records.codec import Codec
from api_service.records.container import JournalPosition
from api_service.store.store import Entry, Put, Store


class NodeCursors:
    """The stored position may lag behind; following from it again is harmless."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._codec = Codec(JournalPosition)

    async def get(self, node: str) -> JournalPosition | None:
        """None when the node was never followed."""
        entry = await self._store.get(_key(node))
        return self._codec.decode(entry).record if entry is not None else None

    async def watch(self, node: str) -> AsyncGenerator[JournalPosition]:
        """As it stands, then each time it is another, without end."""
        key, revision = _key(node), await self._store.revision()
        if (known := await self.get(node)) is not None:
            yield known
        async for change in self._store.watch(key, after=revision):
            if change.key == key and change.value is not None:
                yield self._codec.decode(Entry(key=key, value=change.value, revision=change.revision)).record

    async def set(self, node: str, position: JournalPosition) -> None:
        await self._store.commit(Put(key=_key(node), value=self._codec.encode(position)))


def _key(node: str) -> str:
    return f"node-cursors/{node}"
