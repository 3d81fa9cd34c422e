"""The events in the store: `events/<time>-<source>-<index>`, written by the commit of the change they tell of.

The key orders them by time, for reading "since"; the revision of the commit orders them by happening, for reading
"after". A cursor is the latter, and the store's watch makes it durable: nothing is missed and nothing is doubled.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import AsyncGenerator, Sequence

from api_service.records.codec import Codec
from api_service.records.event import Event, EventCursor
from api_service.store.store import Delete, Entry, Put, RevisionConflict, Store
from common.errors import InvalidArgument, OutOfRange, Violation

_PREFIX = "events/"
_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,4})")
_TRIM_BATCH = 100
_LAST_INDEX = 9999  # no commit has as many events

BEGINNING = EventCursor(revision=0, index=-1)
"""The place before every event."""


class EventLog:
    """`limit` events are kept; up to a hundred more until they are trimmed."""

    def __init__(self, store: Store, *, limit: int = 100_000) -> None:
        self._store = store
        self._limit = limit
        self._codec = Codec(Event)

    def puts(self, events: Sequence[Event], *, source: str = "") -> list[Put]:
        """What a commit has to write for these events, in order.

        A `source` says where they come from (a journal entry) and makes the keys reproducible: writing the same events
        twice conflicts. Without one they are new every time.
        """
        if not events:
            return []
        keys = _keys(events, source=source or secrets.token_hex(8))
        return [
            Put(key=key, value=self._codec.encode(event), expected_revision=0)
            for key, event in zip(keys, events, strict=True)
        ]

    async def add(self, *events: Event) -> None:
        await self._store.commit(*self.puts(events))

    async def add_missing(self, events: Sequence[Event], *, source: str) -> None:
        """Write the events of this source unless they are there."""
        if events and await self._store.get(_keys(events, source=source)[0]) is None:
            with contextlib.suppress(RevisionConflict):  # somebody else just did
                await self._store.commit(*self.puts(events, source=source))

    async def end(self) -> EventCursor:
        """The place after everything that has happened."""
        return EventCursor(revision=await self._store.revision(), index=_LAST_INDEX)

    async def kept(self, *, after: EventCursor, since: int = 0) -> AsyncGenerator[tuple[EventCursor, Event]]:
        """What is kept of the events after the cursor whose time is `since` (nanoseconds) or later, as they happened.
        Decoded as they are taken: there may be a hundred thousand."""
        entries = await self._store.list(_PREFIX, after_key=f"{_PREFIX}{max(since, 0):020d}")
        placed = [(EventCursor(revision=entry.revision, index=_index(entry.key)), entry) for entry in entries]
        for place, entry in sorted((item for item in placed if item[0] > after), key=lambda item: item[0]):
            yield place, self._codec.decode(entry).record

    async def after(self, cursor: EventCursor) -> AsyncGenerator[tuple[EventCursor, Event]]:
        """What came after the cursor, then what comes, without end. Raises OutOfRange (`CURSOR_GONE`)."""
        place = EventCursor(revision=cursor.revision, index=-1)
        # Other events of the cursor's own commit may come after it.
        begin = cursor.revision if cursor.index >= _LAST_INDEX else max(cursor.revision - 1, 0)
        async for change in self._store.watch(_PREFIX, after=begin):
            if change.value is None:
                continue  # trimmed
            index = place.index + 1 if change.revision == place.revision else 0
            place = EventCursor(revision=change.revision, index=index)
            if place > cursor:
                entry = Entry(key=change.key, value=change.value, revision=change.revision)
                yield place, self._codec.decode(entry).record

    async def since(self, time: int) -> AsyncGenerator[tuple[EventCursor, Event]]:
        """The kept events from `time` (nanoseconds) on, then what comes, without end."""
        now = await self.end()
        async for place, event in self.kept(after=BEGINNING, since=time):
            if place <= now:
                yield place, event
        async for place, event in self.after(now):
            yield place, event

    async def trim_forever(self) -> None:
        """Delete the oldest as they become too many."""
        while True:
            held = await self._trim(len(await self._store.list(_PREFIX)))
            try:
                async for change in self._store.watch(_PREFIX, after=await self._store.revision()):
                    # Removals are this task's own, and counted when they are made.
                    held += change.value is not None
                    if held >= self._limit + _TRIM_BATCH:
                        held = await self._trim(held)
            except OutOfRange:
                continue  # so far behind that only counting again helps

    async def _trim(self, held: int) -> int:
        while held > self._limit:
            oldest = await self._store.list(_PREFIX, limit=min(_TRIM_BATCH, held - self._limit))
            await self._store.commit(*(Delete(key=entry.key) for entry in oldest))
            held -= len(oldest)
        return held


def parse_cursor(text: str) -> EventCursor:
    """Raises InvalidArgument for what no stream ever gave out."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        what = "is not a cursor; give one that an answer of StreamEvents carried, or leave it empty"
        raise InvalidArgument(violations=[Violation(field="cursor", description=f"{text!r} {what}")])
    return EventCursor(revision=int(match[1]), index=int(match[2]))


def _keys(events: Sequence[Event], *, source: str) -> list[str]:
    return [f"{_PREFIX}{events[0].time:020d}-{source}-{index:04d}" for index in range(len(events))]


def _index(key: str) -> int:
    return int(key.rpartition("-")[2])
