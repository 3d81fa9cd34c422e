"""The store without a disk: for tests, and the plainest statement of what the others must do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

from api_service.store.change_feed import ChangeFeed
from api_service.store.key_space import KeySpace, change_of, check_expected, check_operations
from api_service.store.store import Change, Delete, Entry, Put, Store


class MemoryStore:
    """Use as an async context manager; leaving it ends its watchers. `history_limit`: revisions kept for watchers."""

    def __init__(self, *, history_limit: int = 100_000) -> None:
        self._keys = KeySpace()
        self._feed = ChangeFeed(revision=0, oldest=1, history_limit=history_limit, max_revisions=history_limit)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.close()

    async def get(self, key: str) -> Entry | None:
        return self._keys.get(key)

    async def list(self, prefix: str, *, limit: int = 0, after_key: str = "") -> Sequence[Entry]:
        return self._keys.list(prefix, limit=limit, after_key=after_key)

    async def commit(self, *operations: Put | Delete) -> int:
        check_operations(operations)
        revision = self._feed.revision + 1
        changes: list[Change] = []
        for operation in operations:
            current = self._keys.get(operation.key)
            check_expected(operation, current)
            if (change := change_of(operation, current, revision)) is not None:
                changes.append(change)
        if changes:
            self._keys.apply(changes)
            self._feed.append(revision, changes)
        return self._feed.revision

    async def revision(self) -> int:
        return self._feed.revision

    async def catch_up(self) -> bool:
        return True

    async def changes(self, prefix: str, *, after: int) -> tuple[Sequence[Change], int] | None:
        return self._feed.recent(prefix, after=after)

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Change]:
        return self._feed.follow(prefix, after=after)


_: type[Store] = MemoryStore
