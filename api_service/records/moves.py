"""Containers on their way from one node to another: `moves/<id>` until they run again, and `departed/<node>/<id>` until
what they left on the old node is removed there. Both are written in the commit that moves the record."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from api_service.store.store import Delete, Put, RevisionConflict, Store

_MOVES, _DEPARTED = "moves/", "departed/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """One time that a container left a node; `revision` tells it from a later one."""

    node: str
    container_id: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One time that a container was to move; `revision` tells it from a later one."""

    container_id: str
    revision: int


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

    async def move(self, container_id: str) -> Move | None:
        """None: it is not under way."""
        entry = await self._store.get(_move_key(container_id))
        return Move(container_id=container_id, revision=entry.revision) if entry is not None else None

    async def arrived(self, move: Move) -> None:
        """It is under way no more. One that is to move again meanwhile stays on record."""
        with contextlib.suppress(RevisionConflict):
            await self._store.commit(Delete(key=_move_key(move.container_id), expected_revision=move.revision))

    async def departure(self, node: str, container_id: str) -> Departure | None:
        """None: nothing is there that the container has left."""
        entry = await self._store.get(_departed_key(node, container_id))
        if entry is None:
            return None
        return Departure(node=node, container_id=container_id, revision=entry.revision)

    async def removed(self, departure: Departure) -> None:
        """What was left then is there no more. One that has left again meanwhile stays on record."""
        key = _departed_key(departure.node, departure.container_id)
        with contextlib.suppress(RevisionConflict):
            await self._store.commit(Delete(key=key, expected_revision=departure.revision))

    async def forget(self, node: str) -> None:
        """The node is none any more, and nothing can be removed there."""
        for container_id in await self.departed(node):
            await self._store.commit(Delete(key=_departed_key(node, container_id)))

    @staticmethod
    def begin(container_id: str) -> list[Put]:
        return [Put(key=_move_key(container_id), value=b"")]

    @staticmethod
    def leave(container_id: str, node: str) -> list[Put]:
        return [Put(key=_departed_key(node, container_id), value=b"")]


def _move_key(container_id: str) -> str:
    return f"{_MOVES}{container_id}"


def _departed_key(node: str, container_id: str) -> str:
    return f"{_DEPARTED}{node}/{container_id}"
