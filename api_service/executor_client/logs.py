"""What a container has written. Times are nanoseconds since the epoch on the node's clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class LogStream(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    container_id: str
    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since: int | None = None
    until: int | None = None
    tail: int | None = None


class LogLine(NamedTuple):
    """`dropped`: instead of a line, how many are missing here. A tuple, for it is made a thousand times in one read."""

    stream: LogStream
    time: int
    data: bytes
    dropped: int = 0
