"""Reading a container's log as records: from its end, between two times, across rotated files, and while it grows."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import ParamSpec, TypeVar

from executor_service.logs.files import OpenLog, open_all, open_next
from executor_service.logs.record import Chunk, Joiner, LogRecord, Stream, parse_chunk
from executor_service.logs.tail import TailStart, find_tail
from executor_service.logs.watch import LogWatcher

P = ParamSpec("P")
T = TypeVar("T")

_BATCH = 256 * 1024  # bytes read and parsed in one visit to a worker thread
_MAX_LINE = 64 * 1024  # bytes; conmon's chunks are 8 KiB


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """`tail` is the number of lines from the end (None: all), counted among the streams asked for; `since` and
    `until` are nanoseconds since the epoch, both inclusive."""

    tail: int | None = None
    since: int | None = None
    until: int | None = None
    follow: bool = False
    stdout: bool = True
    stderr: bool = True

    @property
    def streams(self) -> frozenset[Stream]:
        chosen = ((Stream.STDOUT, self.stdout), (Stream.STDERR, self.stderr))
        return frozenset(stream for stream, wanted in chosen if wanted)

    def not_later(self, record: LogRecord) -> bool:
        return self.until is None or record.timestamp <= self.until


async def read_log(
    log: Path, query: LogQuery, *, watcher: LogWatcher, ended: asyncio.Event
) -> AsyncIterator[list[LogRecord]]:
    """Yield the records in the order they were written, as many at once as were read together, never none.
    A log that does not exist is empty.

    With `follow` this goes on until `ended` is set (the container's monitor has gone, so nothing more can come) and all
    is read; otherwise it ends at what was there at first, however fast the log grows. Holds one descriptor and at most
    a batch and a message in memory.
    """
    async with contextlib.AsyncExitStack() as stack:
        grown = stack.enter_context(watcher.subscribe(log)) if query.follow else asyncio.Event()
        cursor = _Cursor(log=log, query=query)
        stack.callback(cursor.close)
        await _in_thread(cursor.open)
        while True:
            grown.clear()
            # Asked before reading: what was written before the end is read in this round.
            last_round = ended.is_set() or not query.follow
            while batch := await _in_thread(cursor.read):
                if records := list(takewhile(query.not_later, batch.records)):
                    yield records
                if len(records) < len(batch.records):
                    return
            if last_round:
                if records := cursor.flush():
                    yield records
                return
            await _either(grown, ended)


async def _either(first: asyncio.Event, second: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in (first, second)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch may hold no record: every line in it was filtered out. No batch at all is the end of the log."""

    records: list[LogRecord]


@dataclass(slots=True)
class _Cursor:
    """A place in the log: which file, how far. Its methods block and are called one at a time."""

    log: Path
    query: LogQuery
    ahead: list[OpenLog] = field(default_factory=list)  # files still to be read, the oldest last
    current: OpenLog | None = None
    offset: int = 0
    rest: bytes = b""
    joiner: Joiner = field(default_factory=Joiner)
    skip: int = 0

    def open(self) -> None:
        files = open_all(self.log)
        # Owned from here on, so that close() finds them whatever happens next.
        self.ahead = files[::-1]
        while self.query.since is not None and len(self.ahead) > 1 and self.ahead[-1].modified < self.query.since:
            self.ahead.pop().close()
        start = TailStart(index=0, offset=0)
        if self.query.tail is not None:
            start = find_tail(self.ahead[::-1], self.query.tail, streams=self.query.streams)
        for _ in range(start.index):
            self.ahead.pop().close()
        self.skip = start.skip
        if self.ahead:
            self.current, self.offset = self.ahead.pop(), start.offset

    def close(self) -> None:
        for file in (*self.ahead, *((self.current,) if self.current else ())):
            file.close()
        self.ahead, self.current = [], None

    def read(self) -> _Batch | None:
        """The next batch, None at the end of what is written so far."""
        while True:
            if self.current is None and not self._advance():
                return None
            if content := self._read_current():
                return _Batch(self._records(content))
            # A newer file means that nobody writes to this one any more, so what is read now is all there is.
            following = self.ahead.pop() if self.ahead else self._next()
            if following is None:
                return None
            if content := self._read_current():
                self.ahead.append(following)
                return _Batch(self._records(content))
            self._switch(following)
            if following.gap and (cut := self.flush()):
                return _Batch(cut)

    def flush(self) -> list[LogRecord]:
        return self._wanted(self.joiner.flush())

    def _advance(self) -> bool:
        if not self.query.follow:
            return False
        files = open_all(self.log)
        if not files:
            return False
        self.ahead = files[::-1]
        self._switch(self.ahead.pop())
        return True

    def _next(self) -> OpenLog | None:
        assert self.current is not None
        if not self.query.follow:
            return None  # it was begun after the question
        return open_next(self.log, self.current)

    def _switch(self, file: OpenLog) -> None:
        if self.current is not None:
            self.current.close()
        self.current, self.offset, self.rest = file, 0, b""

    def _read_current(self) -> bytes:
        assert self.current is not None
        size = _BATCH if self.query.follow else min(_BATCH, max(self.current.size - self.offset, 0))
        content = os.pread(self.current.descriptor, size, self.offset)
        self.offset += len(content)
        return content

    def _records(self, content: bytes) -> list[LogRecord]:
        lines = (self.rest + content).split(b"\n")
        self.rest = lines.pop()[:_MAX_LINE]
        return self._wanted(self.joiner.join(self._chunks(lines)))

    def _chunks(self, lines: list[bytes]) -> Iterable[Chunk]:
        streams = self.query.streams
        for line in lines:
            chunk = parse_chunk(line)
            if chunk is not None and (chunk.stream in streams or chunk.gap):
                yield chunk

    def _wanted(self, records: Iterable[LogRecord]) -> list[LogRecord]:
        wanted: list[LogRecord] = []
        for record in records:
            if self.skip:
                # A line that came in pieces counts once.
                self.skip -= record.data.endswith(b"\n")
            elif self.query.since is None or record.timestamp >= self.query.since:
                wanted.append(record)
        return wanted


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run in a worker thread, and when cancelled wait for it: its descriptors must not be closed under it."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
