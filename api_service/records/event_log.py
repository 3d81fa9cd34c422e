"""The events in the store: `events/<time>-<source>-<index>`, written by the commit of the change they tell of.

The key orders them by time, for reading "since"; the revision of the commit and the place among the commit's events
order them by happening, for reading "after". A cursor is the latter, and the store's watch makes it durable: nothing is
missed and nothing is doubled. The place stands in the value: a key has to be the same whatever else is in the commit,
so that what one journal entry tells is written once.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import re
import secrets
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from api_service.records.codec import Codec
from api_service.records.event import Event, EventCursor
from api_service.store.store import STORE_FULL, Delete, Entry, Put, RevisionConflict, Store
from common.errors import InvalidArgument, OutOfRange, ResourceExhausted, Violation

_log = structlog.get_logger(__name__)

_PREFIX = "events/"
_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,4})")
_TRIM_BATCH = 100
_TRIM_BATCH_BYTES = 1024 * 1024
_LONGEST_RETRY = 60.0  # seconds
_LAST_INDEX = 9999  # no commit has as many events

BEGINNING = EventCursor(revision=0, index=-1)
"""The place before every event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """What is stored of an event: itself, and its place among the events of its commit."""

    place: int
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """How many events the store holds, and the bytes of their keys and values."""

    count: int
    size: int


class EventLog:
    """`limit` events of `max_bytes` (keys and values) together are kept; up to a hundred more, or a mebibyte more,
    until they are trimmed, as they happened: by their times those of a clock that is behind would go first, and those
    of one that is ahead never. `retry`: seconds until trimming that failed is tried again, doubled up to a minute."""

    def __init__(
        self, store: Store, *, limit: int = 100_000, max_bytes: int = 64 * 1024 * 1024, retry: float = 1.0
    ) -> None:
        self._store = store
        self._limit = limit
        self._max_bytes = max_bytes
        self._slack = min(_TRIM_BATCH_BYTES, max_bytes // 4)
        self._retry = retry
        self._codec = Codec(_Placed)

    def puts(self, events: Sequence[Event], *, source: str = "", first: int = 0) -> list[Put]:
        """What a commit has to write for these events, in order; `first` is the number of events before them in the
        same commit.

        A `source` says where they come from (a journal entry) and makes the keys reproducible: writing the same events
        twice conflicts. Without one they are new every time.
        """
        if not events:
            return []
        keys = _keys(events, source=source or secrets.token_hex(8))
        return [
            Put(key=key, value=self._codec.encode(_Placed(place=place, event=event)), expected_revision=0)
            for place, (key, event) in enumerate(zip(keys, events, strict=True), first)
        ]

    async def add(self, *events: Event) -> None:
        """In a full store the oldest events make room."""
        await self.commit(*self.puts(events))

    async def add_missing(self, events: Sequence[Event], *, source: str) -> None:
        """Write the events of this source unless they are there."""
        if events and await self._store.get(_keys(events, source=source)[0]) is None:
            with contextlib.suppress(RevisionConflict):  # somebody else just did
                await self.commit(*self.puts(events, source=source))

    async def commit(self, *operations: Put | Delete) -> int:
        """What has happened, and so has to be on record: in a full store the oldest events make room, as long as there
        are any. Returns the revision, raises what the store raises."""
        while True:
            try:
                return await self._store.commit(*operations)
            except ResourceExhausted as error:
                if error.reason != STORE_FULL or not (oldest := await self._oldest()):
                    raise
            # By itself: a store takes that however full it is, and one of these may be an event of `operations`.
            await self._store.commit(*oldest)

    async def _oldest(self) -> list[Delete]:
        """The first that happened, whatever the clocks said, and enough of them for a while."""
        entries = await self._store.list(_PREFIX)
        return [Delete(key=entry.key) for entry in heapq.nsmallest(_TRIM_BATCH, entries, key=_revision)]

    async def end(self) -> EventCursor:
        """The place after everything that has happened."""
        return EventCursor(revision=await self._store.revision(), index=_LAST_INDEX)

    async def kept(self, *, after: EventCursor, since: int = 0) -> AsyncGenerator[tuple[EventCursor, Event]]:
        """What is kept of the events after the cursor whose time is `since` (nanoseconds) or later, as they happened.
        What cannot be read is left out. Decoded commit by commit: there may be a hundred thousand."""
        entries = await self._store.list(_PREFIX, after_key=f"{_PREFIX}{max(since, 0):020d}")
        later = sorted((entry for entry in entries if entry.revision >= after.revision), key=_revision)
        for _, commit in itertools.groupby(later, key=_revision):
            for place, event in sorted(self._readable(commit), key=lambda item: item[0]):
                if place > after:
                    yield place, event

    async def after(self, cursor: EventCursor) -> AsyncGenerator[tuple[EventCursor, Event]]:
        """What came after the cursor, then what comes, without end. Raises OutOfRange (`CURSOR_GONE`)."""
        # Other events of the cursor's own commit may come after it.
        begin = cursor.revision if cursor.index >= _LAST_INDEX else max(cursor.revision - 1, 0)
        async for change in self._store.watch(_PREFIX, after=begin):
            if change.value is None:
                continue  # trimmed
            for place, event in self._readable([Entry(key=change.key, value=change.value, revision=change.revision)]):
                if place > cursor:
                    yield place, event

    async def since(self, time: int) -> AsyncGenerator[tuple[EventCursor, Event]]:
        """The kept events from `time` (nanoseconds) on, then what comes, without end."""
        now = await self.end()
        async for place, event in self.kept(after=BEGINNING, since=time):
            if place <= now:
                yield place, event
        async for place, event in self.after(now):
            yield place, event

    async def trim_forever(self) -> None:
        """Delete the oldest as they become too many or too large, whatever fails meanwhile."""
        delay = self._retry
        while True:
            try:
                async for _ in self._trimmings():
                    delay = self._retry
            except OutOfRange:
                continue  # so far behind that only counting again helps
            except Exception as error:
                # A write that failed, or a bug, must not let events grow for as long as the service runs.
                _log.warning("events not trimmed", retry_in=delay, exc_info=error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LONGEST_RETRY)

    async def _trimmings(self) -> AsyncGenerator[None]:
        """Counts, and trims as events come; yields after each trimming."""
        revision = await self._store.revision()
        held = await self._trim()
        yield
        async for change in self._store.watch(_PREFIX, after=revision):
            if change.value is None:
                continue  # this task's own, and counted when it was made
            held = _Held(count=held.count + 1, size=held.size + _size(change.key, change.value))
            if held.count >= self._limit + _TRIM_BATCH or held.size > self._max_bytes + self._slack:
                held = await self._trim()
                yield

    async def _trim(self) -> _Held:
        entries = await self._store.list(_PREFIX)
        held = _Held(count=len(entries), size=sum(_size(entry.key, entry.value) for entry in entries))
        going: list[Delete] = []
        for entry in sorted(entries, key=_revision):
            if held.count <= self._limit and held.size <= self._max_bytes:
                break
            going.append(Delete(key=entry.key))
            held = _Held(count=held.count - 1, size=held.size - _size(entry.key, entry.value))
        for begin in range(0, len(going), _TRIM_BATCH):
            await self._store.commit(*going[begin : begin + _TRIM_BATCH])
        return held

    def _readable(self, entries: Iterable[Entry]) -> Iterator[tuple[EventCursor, Event]]:
        for entry in entries:
            for placed in self._codec.each_readable([entry]):
                yield EventCursor(revision=entry.revision, index=placed.place), placed.event


def parse_cursor(text: str) -> EventCursor:
    """Raises InvalidArgument for what no stream ever gave out."""
    match = _CURSOR.fullmatch(text)
    if match is None:
        what = "is not a cursor; give one that an answer of StreamEvents carried, or leave it empty"
        raise InvalidArgument(violations=[Violation(field="cursor", description=f"{text!r} {what}")])
    return EventCursor(revision=int(match[1]), index=int(match[2]))


def _keys(events: Sequence[Event], *, source: str) -> list[str]:
    return [f"{_PREFIX}{events[0].time:020d}-{source}-{index:04d}" for index in range(len(events))]


def _revision(entry: Entry) -> int:
    return entry.revision


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value)
