"""The change feed of a store: the latest commits in memory, and watchers that follow them.

A watcher is a cursor and nothing else: no task, no queue. It takes what lies after its cursor from memory, or from the
kept history when it has fallen behind what memory holds, and waits for the next commit when nothing does. So a slow
watcher costs no memory, and history and live changes cannot have a gap between them: they are one sequence.

A commit wakes those whose prefix it touches and nobody else, so it costs the same however many wait for other keys.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from api_service.store.store import Change
from common.errors import OutOfRange, Unavailable

HistoryReader = Callable[[str, int, int], Awaitable[tuple[Sequence[Change], int]]]
"""`(prefix, after, upto)` to the changes of some revisions greater than `after`, at most `upto`, whole revisions only,
and the revision up to which they are complete. Raises OutOfRange when they are no longer kept."""


@dataclass(slots=True)
class _Waiting:
    """Those who wait for a change of one prefix. It is over with the commit that brings one, and when the feed jumps or
    is closed; up to the revision `before` that there was nothing."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    before: int = 0
    count: int = 0


class ChangeFeed:
    """Commits by revision, the latest `max_revisions` and `max_bytes` of them. Revisions may have gaps: a cluster
    counts what is not ours, too. Belongs to the event loop.

    `history_limit` revisions are kept in all (the store's promise), whether memory or `history` holds them.
    """

    def __init__(
        self,
        *,
        revision: int,
        oldest: int,
        history_limit: int,
        max_revisions: int,
        max_bytes: int | None = None,
        history: HistoryReader | None = None,
    ) -> None:
        if history_limit < 1:
            raise ValueError(f"history_limit is {history_limit}, it must be at least 1")
        self._revision = revision
        self._first_kept = oldest  # as found when the store was opened; `floor` moves on from there
        self._history_limit = history_limit
        self._max_revisions = max_revisions
        self._max_bytes = max_bytes
        self._history = history
        # From a revision to the next one and its changes, in order, without a hole, up to `revision`.
        self._recent: dict[int, tuple[int, tuple[Change, ...]]] = {}
        self._recent_bytes = 0
        self._waiting: dict[str, _Waiting] = {}
        self._waiting_lengths: Counter[int] = Counter()  # how many prefixes of each length there are among them
        self._closed = False

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def floor(self) -> int:
        """The least revision a watcher may begin after."""
        return max(self._first_kept - 1, self._revision - self._history_limit)

    def append(self, revision: int, changes: Sequence[Change]) -> None:
        """One commit's changes, of the next revision there is."""
        before, self._revision = self._revision, revision
        self._recent[before] = (revision, tuple(changes))
        self._recent_bytes += _bytes(changes)
        while len(self._recent) > self._max_revisions or (
            self._max_bytes is not None and self._recent_bytes > self._max_bytes
        ):
            self._recent_bytes -= _bytes(self._recent.pop(next(iter(self._recent)))[1])
        touched = {change.key[:length] for change in changes for length in self._waiting_lengths}
        self._wake(sorted(touched & self._waiting.keys()), before)

    def jump(self, revision: int) -> None:
        """To a later or another state, without its changes: whoever has not seen them is told so."""
        self._recent.clear()
        self._recent_bytes = 0
        self._first_kept = revision + 1
        before, self._revision = self._revision, revision
        self._wake(list(self._waiting), before)

    def close(self) -> None:
        """End every watcher with Unavailable."""
        self._closed = True
        self._wake(list(self._waiting), self._revision)

    def follow(self, prefix: str, *, after: int) -> AsyncIterator[Change]:
        """See `Store.watch`."""
        return _Follower(self, prefix, after)

    def recent(self, prefix: str, *, after: int) -> tuple[Sequence[Change], int] | None:
        """See `Store.changes`. `after` is a revision that there was."""
        found: list[Change] = []
        while after != self._revision:
            if (recent := self._recent.get(after)) is None:
                return None
            after, changes = recent
            found += [change for change in changes if change.key.startswith(prefix)]
        return found, after

    async def read(self, prefix: str, after: int) -> tuple[Sequence[Change], int]:
        """Some changes that lie after `after`, perhaps none, and the revision up to which they are complete. Raises
        OutOfRange when they are no longer kept."""
        self._check(after)
        if after == self._revision:
            return (), after
        if (recent := self._recent.get(after) or self._recent_from(after)) is not None:
            revision, changes = recent
            return [change for change in changes if change.key.startswith(prefix)], revision
        assert self._history is not None, "memory holds every kept revision when there is no other history"
        return await self._history(prefix, after, self._revision)

    @contextmanager
    def waiting(self, prefix: str) -> Iterator[_Waiting]:
        """Around the wait for a change after the latest revision. Raises Unavailable once closed."""
        if self._closed:
            raise Unavailable("the store is closed", reason="STORE_CLOSED")
        waiting = self._waiting.get(prefix)
        if waiting is None:
            waiting = self._waiting[prefix] = _Waiting()
            self._waiting_lengths[len(prefix)] += 1
        waiting.count += 1
        try:
            yield waiting
        finally:
            waiting.count -= 1
            if not waiting.count and not waiting.over.is_set():
                self._forget(prefix)

    def _recent_from(self, after: int) -> tuple[int, tuple[Change, ...]] | None:
        """For a revision that is in a gap."""
        known = list(self._recent)
        place = bisect_right(known, after)
        return self._recent[known[place - 1]] if place else None

    def _check(self, after: int) -> None:
        if after < self.floor:
            raise cursor_gone(after, self.floor)
        if after > self._revision:
            # Waiting would silently skip what other commits those numbers mean here.
            raise OutOfRange(
                f"the cursor {after} is ahead of the store, which is at revision {self._revision}: it was given by "
                "another store, or this one was restored from a backup; list again and watch from the new revision",
                metadata={"revision": str(self._revision)},
            )

    def _wake(self, prefixes: Sequence[str], before: int) -> None:
        for prefix in prefixes:
            waiting = self._forget(prefix)
            waiting.before = before
            waiting.over.set()

    def _forget(self, prefix: str) -> _Waiting:
        length = len(prefix)
        self._waiting_lengths[length] -= 1
        if not self._waiting_lengths[length]:
            del self._waiting_lengths[length]
        return self._waiting.pop(prefix)


class _Follower:
    """A class and not a generator: cancelling one `anext` (a timeout) loses nothing, and an abandoned watch needs no
    finaliser's task."""

    def __init__(self, feed: ChangeFeed, prefix: str, after: int) -> None:
        self._feed = feed
        self._prefix = prefix
        self._cursor = after
        self._ready: deque[Change] = deque()  # one batch at most

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        while not self._ready:
            if self._cursor == self._feed.revision:
                await self._next_change()
            found, self._cursor = await self._feed.read(self._prefix, self._cursor)
            self._ready.extend(found)
        return self._ready.popleft()

    async def _next_change(self) -> None:
        """Commits that do not touch the prefix are passed, also by a wait that is broken off."""
        with self._feed.waiting(self._prefix) as waiting:
            try:
                await waiting.over.wait()
            finally:
                self._cursor = waiting.before if waiting.over.is_set() else self._feed.revision


def cursor_gone(after: int, floor: int) -> OutOfRange:
    return OutOfRange(
        f"the changes after revision {after} are no longer kept, the oldest cursor possible is {floor}; list again "
        "and watch from the new revision",
        metadata={"oldest": str(floor)},
    )


def _bytes(changes: Sequence[Change]) -> int:
    return sum(len(change.key) + len(change.value or b"") for change in changes)
