"""Finding where the last N lines of a log begin, by reading it backwards."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from executor_service.logs.files import OpenLog
from executor_service.logs.record import Stream

_BLOCK = 64 * 1024
_STREAMS = {b"stdout": Stream.STDOUT, b"stderr": Stream.STDERR}


@dataclass(frozen=True, slots=True, kw_only=True)
class TailStart:
    """Read from `offset` of the file at `index`. There the first line of each stream in `cut` may lack its beginning
    and is dropped, and so are `skip` lines after that."""

    index: int
    offset: int
    cut: frozenset[Stream] = frozenset()
    skip: int = 0


def find_tail(files: Sequence[OpenLog], count: int, *, streams: Collection[Stream]) -> TailStart:
    """Where to begin reading for the last `count` lines of `streams`. `files` go from the oldest to the newest.
    Blocks."""
    if count == 0 and files:
        return TailStart(index=len(files) - 1, offset=files[-1].size, cut=frozenset())
    # A line may have begun, in parts, before the place we find, once for each stream; so look for that many more.
    wanted, found = count + len(streams), 0
    seen: set[Stream] = set()
    for index in range(len(files) - 1, -1, -1):
        for offset, stream in _endings(files[index]):
            if stream in streams:
                found += 1
                seen.add(stream)
            if found == wanted:
                cut = frozenset(seen)
                return TailStart(index=index, offset=offset, cut=cut, skip=wanted - len(cut) - count)
    return TailStart(index=0, offset=0, skip=max(0, found - count))


def _endings(file: OpenLog) -> Iterator[tuple[int, Stream]]:
    """(offset of the line in the file, stream) of every line that ends a line of output, from the last to the first."""
    for offset, line in _lines_backwards(file):
        fields = line.split(b" ", 3)
        if len(fields) == 4 and fields[2] == b"F" and fields[1] in _STREAMS:
            yield offset, _STREAMS[fields[1]]


def _lines_backwards(file: OpenLog) -> Iterator[tuple[int, bytes]]:
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
        end = len(content)
        while end > first:
            begin = max(first, content.rfind(b"\n", first, end - 1) + 1)
            yield start + begin, content[begin:end]
            end = begin
        position = start
