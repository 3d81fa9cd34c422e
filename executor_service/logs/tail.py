"""Finding where the last N lines of a log begin, by reading it backwards."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from executor_service.logs.files import OpenLog
from executor_service.logs.record import MAX_MESSAGE, Stream

_BLOCK = 64 * 1024
_STREAMS = {b"stdout": Stream.STDOUT, b"stderr": Stream.STDERR}


# How far beyond the tail the beginning of its first lines is looked for, in bytes: more than one message and its tags.
_BEGINNING_WITHIN = 2 * MAX_MESSAGE


@dataclass(frozen=True, slots=True, kw_only=True)
class TailStart:
    """Read from `offset` of the file at `index`, and leave out the first `skip` lines of output."""

    index: int
    offset: int
    skip: int = 0


def find_tail(files: Sequence[OpenLog], count: int, *, streams: Collection[Stream]) -> TailStart:
    """Where to begin reading for the last `count` lines of `streams`. `files` go from the oldest to the newest. Blocks.

    A line of the tail may have begun, in parts and between lines of the other stream, before the tail does. So reading
    begins at an earlier end of a line of each stream in the tail.
    """
    if count == 0 and files:
        return TailStart(index=len(files) - 1, offset=files[-1].size)
    found, scanned, beyond = 0, 0, 0
    unbegun: set[Stream] = set()
    for index in range(len(files) - 1, -1, -1):
        for offset, stream in _endings(files[index]):
            if stream not in streams:
                continue
            found += 1
            position = scanned + files[index].size - offset
            if found <= count:
                unbegun.add(stream)
                beyond = position
            else:
                unbegun.discard(stream)
            if found > count and (not unbegun or position - beyond > _BEGINNING_WITHIN):
                return TailStart(index=index, offset=offset, skip=found - count)
        scanned += files[index].size
    return TailStart(index=0, offset=0, skip=max(0, found - count))


def _endings(file: OpenLog) -> Iterator[tuple[int, Stream]]:
    """(offset of the line in the file, stream) of every line that ends a line of output, from the last to the first."""
    for offset, line in _lines_backwards(file):
        fields = line.split(b" ", 3)
        if len(fields) == 4 and fields[2] == b"F" and fields[1] in _STREAMS:
            yield offset, _STREAMS[fields[1]]


def _lines_backwards(file: OpenLog) -> Iterator[tuple[int, bytes]]:
    """(offset, line without its newline), from the last to the first; also the empty one after the last newline."""
    position, carry = file.size, b""
    while position > 0:
        start = max(0, position - _BLOCK)
        content = os.pread(file.descriptor, position - start, start) + carry
        if start > 0:
            # The first line of the block may begin in the one before it.
            first = content.find(b"\n") + 1
            if first == 0:
                carry, position = content, start
                continue
        else:
            first = 0
        carry = content[:first]
        lines = content[first:].split(b"\n")
        offset = start + len(content) + 1
        for line in reversed(lines):
            offset -= len(line) + 1
            yield offset, line
        position = start
