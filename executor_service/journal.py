"""The node's journal: every transition of every container, durable, numbered from 1 without a gap.

An entry is written in the transaction that changes the container's row. Whoever follows gets the recorded entries,
then the new ones; a follower holds a position and no queue, so a slow one costs nothing and is told when the entries
it has not read were dropped. The newest entries are also kept in memory, which is where live followers read.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice

from pydantic import TypeAdapter

from common.errors import OutOfRange, Unavailable
from common.sqlite import Database
from executor_service.journal_entries import AnyEvent, Event, JournalEntry, Started, StartFailure

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS journal (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,
    container_id TEXT NOT NULL,
    start_id TEXT,
    event TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS journal_starts ON journal (container_id, start_id) WHERE start_id IS NOT NULL;
"""

DEFAULT_RETENTION = 100_000
_RECENT = 1024  # entries in memory
_BATCH = 256  # entries a follower reads at once

_EVENT: TypeAdapter[AnyEvent] = TypeAdapter(Event)


class Journal:
    """Use `load` first. Everything but `append` belongs to the event loop."""

    def __init__(self, database: Database, *, retention: int = DEFAULT_RETENTION) -> None:
        self._database = database
        self._retention = retention
        self._recent: deque[JournalEntry] = deque(maxlen=_RECENT)
        self._advanced = asyncio.Event()
        self.id = ""
        self.node_id = ""
        self.head = 0  # sequence of the last entry
        self._oldest = 1  # sequence of the first entry that is kept
        self._closed = False
        self._listeners: list[Callable[[JournalEntry], None]] = []

    def listen(self, listener: Callable[[JournalEntry], None]) -> None:
        """Call it with every entry that is published from now on. It must not block."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Read the position, and make the journal's and the node's identity when there is none."""
        self.id, self.node_id, self.head, self._oldest = await self._database.write(_identity)

    def append(
        self, connection: sqlite3.Connection, *, container_id: str, event: Event, time_ns: int | None = None
    ) -> JournalEntry:
        """Write an entry within the caller's transaction, on the writer's thread. `publish` it after the commit."""
        moment = time.time_ns() if time_ns is None else time_ns
        start_id = event.start_id if isinstance(event, Started | StartFailure) else None
        cursor = connection.execute(
            "INSERT INTO journal (time, container_id, start_id, event) VALUES (?, ?, ?, ?)",
            (moment, container_id, start_id, _EVENT.dump_json(event).decode()),
        )
        sequence = cursor.lastrowid
        assert sequence is not None
        connection.execute("DELETE FROM journal WHERE sequence <= ?", (sequence - self._retention,))
        return JournalEntry(sequence=sequence, time=moment, container_id=container_id, event=event)

    def publish(self, entry: JournalEntry) -> None:
        """Make a committed entry known to the followers; in the order of the commits."""
        self.head = entry.sequence
        self._oldest = max(self._oldest, entry.sequence - self._retention + 1)
        self._recent.append(entry)
        for listener in self._listeners:
            listener(entry)
        self._advanced.set()
        self._advanced = asyncio.Event()

    def close(self) -> None:
        """Let the followers go: they raise Unavailable."""
        self._closed = True
        self._advanced.set()

    def accept(self, *, journal_id: str, after: int) -> None:
        """Raises OutOfRange unless every entry after `after` is known: the journal is another one (`journal_id`, empty
        means this one), the position lies ahead, or entries after it were dropped. 0 means all that are kept."""
        if journal_id and journal_id != self.id:
            raise self._gone(f"journal {journal_id!r} is not this node's any more, which is {self.id!r}")
        if not 0 <= after <= self.head:
            raise self._gone(f"position {after} is not in the journal, whose last entry is {self.head}")
        if after and after + 1 < self._oldest:
            raise self._gone(f"entries after {after} were dropped; the oldest kept is {self._oldest}")

    async def follow(self, after: int) -> AsyncIterator[JournalEntry]:
        """Entries after `after`, without end. Raises OutOfRange when the follower is so slow that entries it has not
        read are dropped."""
        position = max(after, self._oldest - 1) if after == 0 else after
        while not self._closed:
            advanced = self._advanced
            entries = await self._after(position)
            if not entries:
                await advanced.wait()
                continue
            if entries[0].sequence != position + 1:
                raise self._gone(f"entries after {position} were dropped before they were read")
            for entry in entries:
                yield entry
            position = entries[-1].sequence
        raise Unavailable("the executor is stopping; follow again from the last entry", retry_after=1.0)

    async def outcome(self, container_id: str, start_id: str) -> JournalEntry | None:
        """How the start with this key ended; None when the journal does not know it (any more)."""
        return await self._database.read(lambda connection: _outcome(connection, container_id, start_id))

    async def _after(self, position: int) -> Sequence[JournalEntry]:
        if position >= self.head:
            return ()
        first = self._recent[0].sequence if self._recent else self.head + 1
        if first <= position + 1:
            return list(islice(self._recent, position + 1 - first, position + 1 - first + _BATCH))
        return await self._database.read(lambda connection: _batch(connection, position))

    def _gone(self, why: str) -> OutOfRange:
        return OutOfRange(
            f"{why}; take a snapshot with ListContainers and follow from its position",
            metadata={"journal_id": self.id, "oldest": str(self._oldest), "head": str(self.head)},
        )


def _identity(connection: sqlite3.Connection) -> tuple[str, str, int, int]:
    for key in ("journal_id", "node_id"):
        connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, str(uuid.uuid4())))
    known = dict(connection.execute("SELECT key, value FROM meta"))
    # sqlite_sequence remembers the head even when every entry was dropped: https://www.sqlite.org/autoinc.html
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal'").fetchone()
    head = row[0] if row else 0
    (oldest,) = connection.execute("SELECT min(sequence) FROM journal").fetchone()
    return known["journal_id"], known["node_id"], head, oldest if oldest is not None else head + 1


_COLUMNS = "SELECT sequence, time, container_id, event FROM journal"


def _batch(connection: sqlite3.Connection, position: int) -> list[JournalEntry]:
    rows = connection.execute(f"{_COLUMNS} WHERE sequence > ? ORDER BY sequence LIMIT ?", (position, _BATCH))
    return [_entry(row) for row in rows]


def _outcome(connection: sqlite3.Connection, container_id: str, start_id: str) -> JournalEntry | None:
    row = connection.execute(f"{_COLUMNS} WHERE container_id = ? AND start_id = ?", (container_id, start_id)).fetchone()
    return _entry(row) if row else None


def _entry(row: tuple[int, int, str, str]) -> JournalEntry:
    sequence, moment, container_id, event = row
    return JournalEntry(sequence=sequence, time=moment, container_id=container_id, event=_EVENT.validate_json(event))
