"""Containers on their way from one node to another: `moves/<id>` until they run again, and `departed/<node>/<id>` until
what they left on the old node is removed there. Both are written in the commit that moves the record."""

from __future__ import annotations

from collections.abc import Sequence

from api_service.store.store import Delete, Put, Store

_MOVES, _DEPARTED = "moves/", "departed/"


class MoveRepository:
    """Every method raises what the store raises."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def under_way(self) -> Sequence[str]:
        """Ids of the containers that move."""
        return [entry.key.removeprefix(_MOVES) for entry in await self._store.list(_MOVES)]

    async def departed(self, node: str) -> Sequence[str]:
        """Ids of the containers that are no longer the node's, and may still be there."""
        prefix = f"{_DEPARTED}{node}/"
        return [entry.key.removeprefix(prefix) for entry in await self._store.list(prefix)]

    async def arrived(self, container_id: str) -> None:
        await self._store.commit(Delete(key=f"{_MOVES}{container_id}"))

    async def removed(self, node: str, container_id: str) -> None:
        await self._store.commit(Delete(key=f"{_DEPARTED}{node}/{container_id}"))

    async def forget(self, node: str) -> None:
        """The node is none any more, and nothing can be removed there."""
        for container_id in await self.departed(node):
            await self.removed(node, container_id)

    @staticmethod
    def begin(container_id: str) -> list[Put]:
        return [Put(key=f"{_MOVES}{container_id}", value=b"")]

    @staticmethod
    def leave(container_id: str, node: str) -> list[Put]:
        return [Put(key=f"{_DEPARTED}{node}/{container_id}", value=b"")]
