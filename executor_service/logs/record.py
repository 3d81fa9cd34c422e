"""The k8s-file log format (CRI logging format, and conmon(8)): `RFC3339Nano stream F|P text`, one chunk a line.

`F` ends a line of the container's output, `P` is a part of a longer one. Parts are joined again here. A relay that had
to drop some of these lines writes `RFC3339Nano dropped F NUMBER` in their place; a rotation writes the number 0 where
lines are missing and nobody knows how many.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

MAX_MESSAGE = 1024 * 1024  # bytes; a longer line comes in pieces, the last one with the newline


class Stream(IntEnum):
    """The container's descriptor the output came from."""

    STDOUT = 1
    STDERR = 2


class LogRecord(NamedTuple):
    """One line of output with its newline; a piece without one when the line is too long, or was never ended.
    `timestamp` is when its first byte was written, in nanoseconds since the epoch. With `dropped` there is no output:
    as many lines of both streams are missing here.

    A tuple, because a log has millions of them and a frozen dataclass takes four times as long to make."""

    timestamp: int
    stream: Stream
    data: bytes
    dropped: int = 0


class Chunk(NamedTuple):
    """One line of the log file. `text` has no newline; `ends` tells whether the container's line ends here. `gap`: it
    is no output, lines of any stream are missing here, as many as `dropped` if that is known."""

    timestamp: int
    stream: Stream
    ends: bool
    text: bytes
    gap: bool = False
    dropped: int = 0


_CONMONS_LENGTH = len("2026-01-01T00:00:00.000000000+00:00")
_POINT = ord(".")
_DROPPED = b"dropped"
_STREAMS = {b"stdout": Stream.STDOUT, b"stderr": Stream.STDERR}


def parse_chunk(line: bytes) -> Chunk | None:
    """Parse a line without its newline. None for what is no chunk: a write cut short by a full disk or a power failure
    must not hide the rest of the log."""
    try:
        stamp, name, tag, text = line.split(b" ", 3)
        timestamp = parse_timestamp(stamp)
    except ValueError:
        return None
    if tag not in (b"F", b"P"):
        return None
    if (stream := _STREAMS.get(name)) is not None:
        return Chunk(timestamp, stream, tag == b"F", text)
    if name == _DROPPED and text.isdigit():
        return Chunk(timestamp, Stream.STDERR, True, b"", True, int(text[:18]))
    return None


def parse_timestamp(text: bytes) -> int:
    """RFC 3339 with up to nine decimals to nanoseconds since the epoch. Raises ValueError."""
    if len(text) == _CONMONS_LENGTH and text[19] == _POINT and text[20:29].isdigit():
        return _epoch_seconds(text[:19], text[29:]) * 1_000_000_000 + int(text[20:29])
    seconds, rest = text[:19], text[19:]
    nanoseconds = 0
    if rest.startswith(b"."):
        length = next((i for i, byte in enumerate(rest[1:]) if not 48 <= byte <= 57), len(rest) - 1)
        nanoseconds = int(rest[1 : 1 + length].ljust(9, b"0")[:9])
        rest = rest[1 + length :]
    return _epoch_seconds(seconds, rest) * 1_000_000_000 + nanoseconds


@lru_cache(maxsize=64)
def _epoch_seconds(seconds: bytes, zone: bytes) -> int:
    # Many lines share a second, and this is most of the cost of a line.
    parsed = datetime.fromisoformat((seconds + zone).decode("ascii", errors="strict"))
    if parsed.tzinfo is None:
        raise ValueError(f"{seconds + zone!r} has no time zone")
    return int(parsed.timestamp())


@dataclass(slots=True)
class _Pending:
    timestamp: int
    parts: list[bytes] = field(default_factory=list)
    size: int = 0


@dataclass(slots=True)
class Joiner:
    """Joins chunks to records, each stream for itself. Holds at most `limit` bytes for each stream."""

    limit: int = MAX_MESSAGE
    _pending: dict[Stream, _Pending] = field(default_factory=dict)

    def join(self, chunks: Iterable[Chunk]) -> Iterator[LogRecord]:
        for chunk in chunks:
            if chunk.gap:
                # What comes next does not go on with what came before.
                yield from self.flush()
                if chunk.dropped:
                    yield LogRecord(chunk.timestamp, chunk.stream, b"", chunk.dropped)
                continue
            pending = self._pending.get(chunk.stream) if self._pending else None
            if pending is not None and pending.size + len(chunk.text) > self.limit:
                yield self._take(chunk.stream, end=b"")
                pending = None
            if chunk.ends and pending is None:
                yield LogRecord(chunk.timestamp, chunk.stream, chunk.text + b"\n")
                continue
            if pending is None:
                pending = self._pending[chunk.stream] = _Pending(chunk.timestamp)
            pending.parts.append(chunk.text)
            pending.size += len(chunk.text)
            if chunk.ends:
                yield self._take(chunk.stream, end=b"\n")

    def flush(self) -> Iterator[LogRecord]:
        """What is left when no more will come: lines that were never ended, the oldest first."""
        for stream in sorted(self._pending, key=lambda stream: self._pending[stream].timestamp):
            yield self._take(stream, end=b"")

    def _take(self, stream: Stream, *, end: bytes) -> LogRecord:
        pending = self._pending.pop(stream)
        return LogRecord(timestamp=pending.timestamp, stream=stream, data=b"".join(pending.parts) + end)
