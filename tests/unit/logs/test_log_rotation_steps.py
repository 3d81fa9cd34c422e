"""Rotation against a monitor played by the test, which reopens the log as conmon does."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from executor_service.container import LogLimits
from executor_service.logs.files import rotated_files
from executor_service.logs.record import parse_chunk
from executor_service.logs.rotation import drop_beyond, rotate
from tests.fixtures.log_files import replaced, replaced_later


@contextmanager
def monitor(log: Path, control: Path, *, answers: int) -> Iterator[list[bytes]]:
    """Reopens the log for the first `answers` messages; yields what it was told."""
    os.mkfifo(control)
    descriptor = os.open(control, os.O_RDWR)
    told: list[bytes] = []

    def serve() -> None:
        while (message := os.read(descriptor, 100)) != b"stop":
            told.append(message)
            if len(told) <= answers:
                replaced(log, b"new %d\n" % len(told))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield told
    finally:
        os.write(descriptor, b"stop")
        thread.join()
        os.close(descriptor)


def contents(log: Path) -> dict[str, str]:
    paths = [log, *(path for _, path in rotated_files(log))]
    return {path.name: path.read_text() for path in paths}


def test_files_shift_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    log, control = tmp_path / "log", tmp_path / "ctl"
    log.write_text("first\n")
    with monitor(log, control, answers=9) as told:
        for _ in range(3):
            assert rotate(log, control=control, max_files=3)
    assert contents(log) == {"log": "new 3\n", "log.1": "new 2\n", "log.2": "new 1\n"}
    assert told == [b"2 0 0\n"] * 3


def test_one_file_alone_begins_anew(tmp_path: Path) -> None:
    log, control = tmp_path / "log", tmp_path / "ctl"
    log.write_text("old\n")
    with monitor(log, control, answers=1):
        assert rotate(log, control=control, max_files=1)
    assert contents(log) == {"log": "new 1\n"}


def test_a_rotation_cut_short_goes_on_where_it_ended(tmp_path: Path) -> None:
    """As after a crash between the second name and the reopening: nothing shifts twice."""
    log, control = tmp_path / "log", tmp_path / "ctl"
    log.write_text("current\n")
    log.with_name("log.1").write_text("before\n")
    log.with_name("log.1").rename(log.with_name("log.2"))
    os.link(log, log.with_name("log.1"))
    with monitor(log, control, answers=1):
        assert rotate(log, control=control, max_files=5)
    assert contents(log) == {"log": "new 1\n", "log.1": "current\n", "log.2": "before\n"}


def test_a_monitor_that_is_busy_is_not_told_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would make two files, and the first one has no second name."""
    log, control = tmp_path / "log", tmp_path / "ctl"
    log.write_text("kept\n")
    os.mkfifo(control)
    descriptor = os.open(control, os.O_RDWR | os.O_NONBLOCK)
    monkeypatch.setattr("executor_service.logs.rotation._REOPEN_TIMEOUT", 0.01)
    try:
        for _ in range(3):
            assert not rotate(log, control=control, max_files=3)
        assert os.read(descriptor, 100) == b"2 0 0\n"
        assert contents(log) == {"log": "kept\n", "log.1": "kept\n"}
        assert not rotate(log, control=control, max_files=3)
        assert os.read(descriptor, 100) == b"2 0 0\n"  # it was read, and nothing came of it
    finally:
        os.close(descriptor)


def test_a_monitor_that_ends_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, control = tmp_path / "log", tmp_path / "ctl"
    log.write_text("kept\n")
    os.mkfifo(control)
    descriptor = os.open(control, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr("executor_service.logs.rotation._REOPEN_TIMEOUT", 3600.0)

    def end_when_told() -> None:
        select.select([descriptor], [], [])
        os.close(descriptor)

    monitor = threading.Thread(target=end_when_told)
    monitor.start()
    assert not rotate(log, control=control, max_files=3)
    monitor.join()
    assert contents(log) == {"log": "kept\n", "log.1": "kept\n"}


def test_lines_that_the_monitor_threw_away_are_told_in_their_place(tmp_path: Path) -> None:
    log, control = tmp_path / "log", tmp_path / "ctl"
    log.write_text("first\n")
    with monitor(log, control, answers=9):
        assert rotate(log, control=control, max_files=9)
        replaced_later(log, b"after\n")  # of its own accord
        for _ in range(2):
            assert rotate(log, control=control, max_files=9)
    found = contents(log)
    assert (found["log"], found["log.1"], found["log.2"]) == ("new 3\n", "new 2\n", "after\n")
    first, told = found["log.3"].splitlines()
    assert first == "first"
    chunk = parse_chunk(told.encode())
    assert chunk is not None
    assert (chunk.gap, chunk.dropped) == (True, 0)


def test_no_monitor_no_log_or_a_link_for_a_fifo(tmp_path: Path) -> None:
    log, control = tmp_path / "log", tmp_path / "ctl"
    assert not rotate(log, control=control, max_files=3)
    log.write_text("kept\n")
    assert not rotate(log, control=control, max_files=3)
    os.mkfifo(control)
    assert not rotate(log, control=control, max_files=3)
    assert contents(log) == {"log": "kept\n"}


def test_a_flood_drops_the_oldest_until_the_rest_fits(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number, size in ((1, 150), (2, 80), (3, 60), (9, 1)):
        log.with_name(f"log.{number}").write_text("x" * size)
    drop_beyond(log, LogLimits(max_size=100, max_files=4))
    assert [number for number, _ in rotated_files(log)] == [1, 2, 3]
    drop_beyond(log, LogLimits(max_size=100, max_files=3))
    assert [number for number, _ in rotated_files(log)] == [1]
