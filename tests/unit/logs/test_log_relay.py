"""The relay: nobody waits for it, the oldest is dropped and counted, files are changed without losing a line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from executor_service.logs import relay
from executor_service.logs.record import Joiner, LogRecord, parse_chunk

_WITHIN = 60.0  # seconds for anything that is waited for


def line(number: int) -> bytes:
    return b"2026-01-01T00:00:00.000000000+00:00 stdout F %06d\n" % number


def records(content: bytes) -> list[LogRecord]:
    chunks = [chunk for each in content.split(b"\n") if (chunk := parse_chunk(each)) is not None]
    joiner = Joiner()
    return [*joiner.join(chunks), *joiner.flush()]


A, B, C = (b"t stdout F " + name + b"\n" for name in (b"a", b"b", b"c"))
PART = b"t stdout P p\n"
SIZE = len(A)


@pytest.mark.parametrize(
    ("limit", "put", "dropped", "kept"),
    [
        (SIZE * 3, [A, B], 0, A + B),
        (SIZE * 2, [A + B + C], 1, B + C),
        (SIZE * 2 - 1, [A + B + C], 2, C),
        (SIZE * 2, [A, B, C], 1, B + C),
        (SIZE * 2, [A + B, C], 1, B + C),
        (1, [A], 0, A),
        (1, [A + B], 1, B),
        (1, [A, B, C], 2, C),
        (SIZE * 3, [PART + A + B, C], 1, B + C),
        (SIZE * 3, [A + PART + B, C], 1, PART + B + C),
        (SIZE * 2, [PART + PART + PART], 0, PART + PART),
    ],
)
def test_the_oldest_lines_make_room_and_the_newest_stays(
    limit: int, put: list[bytes], dropped: int, kept: bytes
) -> None:
    waiting = relay.Waiting(limit)
    for each in put:
        waiting.put(each)
    assert waiting.take() == (False, dropped, kept)
    waiting.end()
    assert waiting.over


def test_what_was_dropped_is_told_in_its_place() -> None:
    before = b"2026-01-01T00:00:00.000000000+00:00 stdout P begun\n"
    told = records(before + b"2026-01-01T00:00:01.000000000+00:00 dropped F 42\n" + line(7))
    assert [(each.data, each.dropped) for each in told] == [(b"begun", 0), (b"", 42), (b"000007\n", 0)]


def test_what_cannot_be_written_is_dropped_and_told_when_it_can(tmp_path: Path) -> None:
    log = relay.Log(str(tmp_path / "log"), 0)
    log.write(line(1) + line(2), 0)  # never opened: as on a disk that is gone
    log.open()
    log.write(line(3), 0)
    assert [(each.data, each.dropped) for each in records((tmp_path / "log").read_bytes())] == [
        (b"", 2),
        (b"000003\n", 0),
    ]


def test_a_log_nobody_rotates_is_begun_anew_at_its_limit(tmp_path: Path) -> None:
    log = relay.Log(str(tmp_path / "log"), 1000)
    log.open()
    for number in range(1000):
        log.write(line(number), 0)
    assert (tmp_path / "log").stat().st_size < 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    bundle: Path
    log: Path

    def pid(self) -> int:
        return int((self.bundle / "relay.pid").read_text())

    def ended(self) -> bool:
        with suppress(OSError):
            return b"relay.py" not in Path(f"/proc/{self.pid()}/cmdline").read_bytes()
        return True


@contextmanager
def relaying(directory: Path, log: Path, *, buffer: int) -> Iterator[tuple[Relay, int]]:
    """And where conmon would write."""
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    argv = [sys.executable, "-I", "-S", relay.__file__, "0" * 64, str(directory), str(log), str(buffer), "0"]
    subprocess.run(argv, stdin=reader, check=True, timeout=_WITHIN)
    os.close(reader)
    started = Relay(bundle=directory, log=log)
    writer = os.open(fifo, os.O_WRONLY)
    try:
        yield started, writer
    finally:
        with suppress(OSError):
            os.close(writer)
        until(started.ended)


def until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + _WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_reader_that_stands_still_holds_up_nobody_and_misses_only_the_oldest(tmp_path: Path) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    disk = os.open(log, os.O_RDWR | os.O_NONBLOCK)
    with relaying(tmp_path, log, buffer=100_000) as (started, writer):
        for number in range(100_000):  # five megabytes, and the pipe called log takes 64 KiB
            os.write(writer, line(number))
        os.close(writer)
        content = b""
        while not started.ended() or not content.endswith(line(99_999)):
            with suppress(BlockingIOError):
                content += os.read(disk, 65536)
    os.close(disk)
    told = records(content)
    numbers = [int(each.data) for each in told if not each.dropped]
    dropped = sum(each.dropped for each in told)
    assert numbers == sorted(numbers)
    assert dropped + len(numbers) == 100_000
    assert dropped > 50_000
    # The newest that fit into the buffer are all there, after the only gap.
    kept = 100_000 // len(line(0))
    assert numbers[-kept:] == list(range(100_000 - kept, 100_000))


def test_a_new_file_is_begun_on_request_and_no_line_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with relaying(tmp_path, log, buffer=10_000_000) as (started, writer):
        os.write(writer, line(1))
        until(lambda: log.exists() and log.stat().st_size)
        os.link(log, tmp_path / "log.1")
        control = os.open(tmp_path / "relay.ctl", os.O_WRONLY | os.O_NONBLOCK)
        os.write(control, b"2 0 0\n")
        os.close(control)
        until(lambda: log.stat().st_ino != (tmp_path / "log.1").stat().st_ino)
        os.write(writer, line(2) + b"torn")
        os.close(writer)
        until(started.ended)
    assert (tmp_path / "log.1").read_bytes() == line(1)
    assert log.read_bytes() == line(2) + b"torn\n"
