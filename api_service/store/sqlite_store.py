"""The embedded store: SQLite for durability, memory for reads.

Every request reads, and a read through SQLite's reader thread costs about a tenth of a millisecond of thread switches
for a microsecond of work. The records of one machine are a few kilobytes a container, so the store keeps all keys and
values in memory, bounded by `quota` bytes (etcd keeps its index in memory and bounds its database in the same manner).
Memory is written only after the commit is on disk, in commit order, so a read never sees what a crash could take back,
and whoever committed reads what they wrote. The compare of compare-and-set is made inside SQLite's transaction, never
against memory, because commits under way are not in memory yet.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from api_service.store.change_feed import ChangeFeed, cursor_gone
from api_service.store.key_space import (
    QUOTA,
    RESERVE,
    KeySpace,
    change_of,
    check_expected,
    check_operations,
    check_room,
)
from api_service.store.store import Change, Delete, Entry, Put, Store
from common.sqlite import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kv (
    key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL, revision INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS history (
    sequence INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB
) STRICT;
"""
# `sequence` is revision * _PLACES + the operation's place in its commit. A key of one integer that only grows
# lets SQLite append to full pages; (revision, place) as a compound key made commits a third slower.

_PLACES = 128  # part of the file's format; no commit has more operations
_RECENT_REVISIONS = 4096
_RECENT_BYTES = 8 * 1024 * 1024
_TRIM_EVERY = 64  # revisions; history may hold that many more than its limit on disk, never in what it answers
_BATCH_CHANGES = 512
_BATCH_BYTES = 2 * 1024 * 1024


class SqliteStore:
    """Use as an async context manager. One process at a time owns the file.

    `history_limit` revisions are kept for watchers (at least 1), also over a restart. `quota` bounds the bytes of all
    keys and values (plus what the commits under way add), see `check_room`.
    A caller of `commit` that is cancelled does not know whether the commit happened.
    """

    def __init__(
        self,
        path: Path,
        *,
        history_limit: int = 100_000,
        quota: int = QUOTA,
        reserve: int = RESERVE,
    ) -> None:
        self._path = path
        self._history_limit = history_limit
        self._quota = quota
        self._reserve = reserve
        self._database = Database(path, schema=_SCHEMA)
        self._keys = KeySpace()
        self._feed = self._make_feed(revision=0, oldest=1)
        self._lifetime = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._database)
            entries, oldest, revision = await self._database.read(_load)
            self._keys = KeySpace(entries)
            self._feed = self._make_feed(revision=revision, oldest=oldest)
            self._lifetime = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._lifetime.aclose()
        finally:
            self._feed.close()

    async def get(self, key: str) -> Entry | None:
        return self._keys.get(key)

    async def list(self, prefix: str, *, limit: int = 0, after_key: str = "") -> Sequence[Entry]:
        return self._keys.list(prefix, limit=limit, after_key=after_key)

    async def commit(self, *operations: Put | Delete) -> int:
        check_operations(operations)
        check_room(self._keys, operations, quota=self._quota, reserve=self._reserve, where=self._path)
        work = functools.partial(_apply, operations=operations, history_limit=self._history_limit)
        revision, _changes = await self._database.write(work, on_commit=self._committed)
        return revision

    async def revision(self) -> int:
        return self._feed.revision

    async def catch_up(self) -> bool:
        return True

    async def changes(self, prefix: str, *, after: int) -> tuple[Sequence[Change], int] | None:
        return self._feed.recent(prefix, after=after)

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Change]:
        return self._feed.follow(prefix, after=after)

    def _committed(self, outcome: tuple[int, Sequence[Change]]) -> None:
        revision, changes = outcome
        if changes:
            self._keys.apply(changes)
            self._feed.append(revision, changes)

    def _make_feed(self, *, revision: int, oldest: int) -> ChangeFeed:
        return ChangeFeed(
            revision=revision,
            oldest=oldest,
            history_limit=self._history_limit,
            max_revisions=min(_RECENT_REVISIONS, self._history_limit),
            max_bytes=_RECENT_BYTES,
            history=self._read_history,
        )

    async def _read_history(self, prefix: str, after: int, upto: int) -> tuple[Sequence[Change], int]:
        return await self._database.read(functools.partial(_history, prefix=prefix, after=after, upto=upto))


def _load(connection: sqlite3.Connection) -> tuple[list[Entry], int, int]:
    """All entries, the oldest revision of the history and the latest (1 and 0 for a new store)."""
    entries = [
        Entry(key=key, value=value, revision=revision)
        for key, value, revision in connection.execute("SELECT key, value, revision FROM kv")
    ]
    oldest, latest = connection.execute("SELECT min(sequence), max(sequence) FROM history").fetchone()
    return entries, (oldest // _PLACES if oldest else 1), (latest // _PLACES if latest else 0)


def _apply(
    connection: sqlite3.Connection, *, operations: Sequence[Put | Delete], history_limit: int
) -> tuple[int, Sequence[Change]]:
    """The revision after the operations and what they changed. Nothing changed: the revision as it was."""
    (last,) = connection.execute("SELECT coalesce(max(sequence), 0) FROM history").fetchone()
    latest = last // _PLACES
    revision = latest + 1
    changes: list[Change] = []
    for operation in operations:
        current = _current(connection, operation.key)
        check_expected(operation, current)
        if (change := change_of(operation, current, revision)) is not None:
            changes.append(change)
    if not changes:
        return latest, ()
    for ordinal, change in enumerate(changes):
        _write_change(connection, change, ordinal)
    if revision % _TRIM_EVERY == 0:
        connection.execute("DELETE FROM history WHERE sequence < ?", (_sequence(revision - history_limit + 1),))
    return revision, changes


def _current(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute("SELECT value, revision FROM kv WHERE key = ?", (key,)).fetchone()
    return Entry(key=key, value=row[0], revision=row[1]) if row is not None else None


def _write_change(connection: sqlite3.Connection, change: Change, ordinal: int) -> None:
    if change.value is None:
        connection.execute("DELETE FROM kv WHERE key = ?", (change.key,))
    else:
        connection.execute(
            "INSERT INTO kv (key, value, revision) VALUES (?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision",
            (change.key, change.value, change.revision),
        )
    connection.execute(
        "INSERT INTO history (sequence, key, value) VALUES (?, ?, ?)",
        (_sequence(change.revision, ordinal), change.key, change.value),
    )


def _sequence(revision: int, ordinal: int = 0) -> int:
    return revision * _PLACES + ordinal


def _history(connection: sqlite3.Connection, *, prefix: str, after: int, upto: int) -> tuple[list[Change], int]:
    """See `HistoryReader`. A batch ends at a revision's end, a little past its bounds."""
    (first,) = connection.execute("SELECT min(sequence) FROM history").fetchone()
    oldest = first // _PLACES
    if after < oldest - 1:
        raise cursor_gone(after, oldest - 1)
    rows = connection.execute(
        "SELECT sequence / ?, key, value FROM history WHERE sequence >= ? AND sequence < ? AND substr(key, 1, ?) = ? "
        "ORDER BY sequence",
        (_PLACES, _sequence(after + 1), _sequence(upto + 1), len(prefix), prefix),
    )
    found: list[Change] = []
    size = 0
    for revision, key, value in rows:
        if (len(found) >= _BATCH_CHANGES or size >= _BATCH_BYTES) and revision != found[-1].revision:
            return found, found[-1].revision
        found.append(Change(key=key, value=value, revision=revision))
        size += len(key) + len(value or b"")
    return found, upto


_: type[Store] = SqliteStore
