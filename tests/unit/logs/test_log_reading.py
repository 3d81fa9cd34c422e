"""Parsing, joining, tailing and following a log, on files written by the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from executor_service.logs.files import open_all
from executor_service.logs.reader import LogQuery, read_log
from executor_service.logs.record import MAX_MESSAGE, Joiner, LogRecord, Stream, parse_chunk, parse_timestamp
from executor_service.logs.watch import LogWatcher
from tests.fixtures.log_files import replaced, replaced_later

SECOND = 1_000_000_000
START = 1_767_225_600 * SECOND  # 2026-01-01T00:00:00Z
DEADLINE = 60.0


def line(number: int, text: str, *, stream: str = "stdout", tag: str = "F") -> bytes:
    """A line of the log, `number` seconds after START."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(START // SECOND + number))
    return f"{stamp}.000000000+00:00 {stream} {tag} {text}\n".encode()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
async def watcher() -> AsyncIterator[LogWatcher]:
    async with LogWatcher.open() as opened:
        yield opened


async def each_record(
    log: Path, query: LogQuery, *, watcher: LogWatcher, ended: asyncio.Event
) -> AsyncIterator[LogRecord]:
    async for records in read_log(log, query, watcher=watcher, ended=ended):
        assert records
        for record in records:
            yield record


async def read(log: Path, watcher: LogWatcher, query: LogQuery | None = None) -> list[LogRecord]:
    ended = asyncio.Event()
    return [record async for record in each_record(log, query or LogQuery(), watcher=watcher, ended=ended)]


def texts(records: list[LogRecord]) -> list[str]:
    return [record.data.decode() for record in records]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"2026-01-01T00:00:00.123456789+00:00", START + 123456789),
        (b"2026-01-01T00:00:00Z", START),
        (b"2026-01-01T01:30:00.5+01:30", START + SECOND // 2),
        (b"2026-01-01T00:00:00.1234567899Z", START + 123456789),
    ],
)
def test_timestamps(text: bytes, nanoseconds: int) -> None:
    assert parse_timestamp(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x",
        b"stdout F x",
        b"2026-01-01T00:00:00 stdout F x",
        b"2026-13-01T00:00:00Z stdout F x",
        b"2026-01-01T00:00:00Z stdin F x",
        b"2026-01-01T00:00:00Z stdout Q x",
        b"\xff\xfe stdout F x",
    ],
)
def test_what_is_no_line_of_a_log_is_skipped(text: bytes) -> None:
    assert parse_chunk(text) is None


def test_text_is_taken_as_it_is() -> None:
    chunk = parse_chunk(b"2026-01-01T00:00:00Z stderr P  a b\x00\xff ")
    assert chunk is not None
    assert (chunk.stream, chunk.ends, chunk.text) == (Stream.STDERR, False, b" a b\x00\xff ")


def test_a_line_without_end_comes_in_bounded_pieces() -> None:
    part = parse_chunk(line(0, "x" * 8192, tag="P").rstrip(b"\n"))
    assert part is not None
    joiner = Joiner()
    records = list(joiner.join([part] * 300))
    assert [len(record.data) for record in records] == [MAX_MESSAGE, MAX_MESSAGE]
    (rest,) = joiner.flush()
    assert len(rest.data) == 300 * 8192 - 2 * MAX_MESSAGE
    assert list(joiner.flush()) == []


async def test_parts_are_joined_for_each_stream(log: Path, watcher: LogWatcher) -> None:
    log.write_bytes(
        line(1, "a", tag="P")
        + line(2, "x", tag="P", stream="stderr")
        + line(3, "b")
        + line(4, "y", stream="stderr")
        + line(5, "open", tag="P")
    )
    records = await read(log, watcher)
    assert [(record.data, record.stream.name, record.timestamp) for record in records] == [
        (b"ab\n", "STDOUT", START + SECOND),
        (b"xy\n", "STDERR", START + 2 * SECOND),
        (b"open", "STDOUT", START + 5 * SECOND),
    ]


async def test_rotated_files_are_read_from_the_oldest(log: Path, watcher: LogWatcher) -> None:
    for number, name in enumerate(("log.10", "log.2", "log.1", "log")):
        log.with_name(name).write_bytes(line(number, name))
    for stranger in ("log.1.gz", "log.x", "log.01", "other.1"):
        log.with_name(stranger).write_bytes(line(9, stranger))
    assert texts(await read(log, watcher)) == ["log.10\n", "log.2\n", "log.1\n", "log\n"]


async def test_a_file_with_two_names_is_read_once(log: Path, watcher: LogWatcher) -> None:
    log.write_bytes(line(1, "a"))
    os.link(log, log.with_name("log.1"))
    assert texts(await read(log, watcher)) == ["a\n"]


async def test_no_log_at_all(log: Path, watcher: LogWatcher) -> None:
    assert await read(log, watcher) == []
    assert await read(log, watcher, LogQuery(tail=5)) == []


async def test_streams_and_times_are_chosen(log: Path, watcher: LogWatcher) -> None:
    log.write_bytes(b"".join(line(n, str(n), stream="stderr" if n % 2 else "stdout") for n in range(10)))
    query = LogQuery(since=START + 2 * SECOND, until=START + 7 * SECOND, stdout=False)
    assert texts(await read(log, watcher, query)) == ["3\n", "5\n", "7\n"]
    assert texts(await read(log, watcher, LogQuery(stderr=False, until=START + 4 * SECOND))) == ["0\n", "2\n", "4\n"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 7, 11, 18, 19, 20, 21, 22, 23, 24, 25, 26, 1000])
@pytest.mark.parametrize("streams", [(True, True), (True, False), (False, True)])
async def test_tail_is_the_end_of_the_whole(
    log: Path, watcher: LogWatcher, count: int, streams: tuple[bool, bool]
) -> None:
    """Over three files, with joined lines, interleaved parts, and blocks smaller than the log."""
    content = [b"", b"", b""]
    for n in range(20):
        stream, other = ("stdout", "stderr") if n % 3 else ("stderr", "stdout")
        parts = [line(n, "p" * 8000, tag="P", stream=stream)] * (n % 5)
        if n % 4 == 1:
            parts.insert(1, line(n, f"between {n}", stream=other))
        parts.append(line(n, f"end {n}", stream=stream))
        content[n * 3 // 20] += b"".join(parts)
    for data, name in zip(content, ("log.2", "log.1", "log"), strict=True):
        log.with_name(name).write_bytes(data)
    stdout, stderr = streams
    whole = await read(log, watcher, LogQuery(stdout=stdout, stderr=stderr))
    tail = await read(log, watcher, LogQuery(tail=count, stdout=stdout, stderr=stderr))
    assert tail == (whole[-count:] if count else [])


async def test_the_tail_of_a_large_log_reads_only_its_end(log: Path, watcher: LogWatcher) -> None:
    with log.open("wb") as file:
        file.write(b"this is not a line of a log, and would be found if it were read " * 1_000_000)
        file.write(b"\n" + b"".join(line(n, str(n)) for n in range(2000)))
    read_before = int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])
    records = await read(log, watcher, LogQuery(tail=1000))
    read_after = int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])
    assert texts(records) == [f"{n}\n" for n in range(1000, 2000)]
    assert read_after - read_before < 1024 * 1024


async def test_lines_that_were_read_together_come_together(log: Path, watcher: LogWatcher) -> None:
    log.write_bytes(b"".join(line(n, str(n)) for n in range(1000)))
    batches = read_log(log, LogQuery(tail=900), watcher=watcher, ended=asyncio.Event())
    assert [len(records) async for records in batches] == [900]


async def test_without_following_it_ends_at_what_was_there_when_asked(log: Path, watcher: LogWatcher) -> None:
    log.write_bytes(line(1, "one") + line(2, "two"))
    found = []
    async for record in each_record(log, LogQuery(), watcher=watcher, ended=asyncio.Event()):
        found.append(record)
        with log.open("ab") as file:
            file.write(line(3, "a flood"))
        log.rename(log.with_name(f"{log.name}.1"))
        log.write_bytes(line(4, "a newer file"))
    assert texts(found) == ["one\n", "two\n"]


async def test_following_ends_when_the_container_has_ended_and_all_is_read(log: Path, watcher: LogWatcher) -> None:
    ended, seen, first = asyncio.Event(), [], asyncio.Event()

    async def follow() -> None:
        async for record in each_record(log, LogQuery(follow=True), watcher=watcher, ended=ended):
            seen.append(record.data)
            first.set()

    async with asyncio.timeout(DEADLINE):
        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        log.write_bytes(line(1, "a"))
        await first.wait()
        with log.open("ab") as file:
            file.write(line(2, "b") + line(3, "c", tag="P"))
        ended.set()
        await following
    assert seen == [b"a\n", b"b\n", b"c"]


async def test_a_line_written_in_two_halves_is_one(log: Path, watcher: LogWatcher) -> None:
    ended = asyncio.Event()
    halves = line(1, "whole")
    log.write_bytes(line(0, "first") + halves[:20])
    records = each_record(log, LogQuery(follow=True), watcher=watcher, ended=ended)
    async with asyncio.timeout(DEADLINE):
        assert (await anext(records)).data == b"first\n"
        with log.open("ab") as file:
            file.write(halves[20:])
        assert (await anext(records)).data == b"whole\n"
        ended.set()
        assert [record async for record in records] == []


async def test_following_across_a_rotation(log: Path, watcher: LogWatcher) -> None:
    """The old file still gets a line after it was given its second name: the monitor has not reopened yet."""
    ended = asyncio.Event()
    log.write_bytes(line(1, "1"))
    records = each_record(log, LogQuery(follow=True), watcher=watcher, ended=ended)
    async with asyncio.timeout(DEADLINE):
        assert (await anext(records)).data == b"1\n"
        os.link(log, log.with_name("log.1"))
        with log.open("ab") as file:
            file.write(line(2, "2"))
        fresh = log.with_name("log.tmp")
        fresh.write_bytes(line(3, "3"))
        fresh.rename(log)
        assert [(await anext(records)).data for _ in range(2)] == [b"2\n", b"3\n"]
        ended.set()
        assert [record async for record in records] == []


@pytest.mark.parametrize("follow", [False, True])
async def test_a_part_and_a_line_that_does_not_go_on_with_it_are_two(
    log: Path, watcher: LogWatcher, *, follow: bool
) -> None:
    """conmon threw away what it wrote in between."""
    log.write_bytes(line(1, "one") + line(2, "begun", tag="P"))
    os.link(log, log.with_name("log.1"))
    replaced(log, line(3, " and ended") + line(4, "gone"))
    ended = asyncio.Event()
    ended.set()
    query = LogQuery(follow=follow)
    assert texts([each async for each in each_record(log, query, watcher=watcher, ended=ended)]) == [
        "one\n",
        "begun and ended\n",
        "gone\n",
    ]
    replaced_later(log, line(5, "later"))
    assert texts([each async for each in each_record(log, query, watcher=watcher, ended=ended)]) == [
        "one\n",
        "begun",
        "later\n",
    ]


async def test_a_follower_that_is_in_the_file_before_the_gap(log: Path, watcher: LogWatcher) -> None:
    ended = asyncio.Event()
    log.write_bytes(line(1, "one") + line(2, "begun", tag="P"))
    records = each_record(log, LogQuery(follow=True), watcher=watcher, ended=ended)
    async with asyncio.timeout(DEADLINE):
        assert (await anext(records)).data == b"one\n"
        os.link(log, log.with_name("log.1"))
        replaced(log, line(3, " and ended"))
        replaced_later(log, line(4, "later"))
        assert [(await anext(records)).data for _ in range(2)] == [b"begun", b"later\n"]
        ended.set()
        assert [record async for record in records] == []


@pytest.mark.parametrize("others", [False, True])
async def test_a_follower_whose_file_is_gone(log: Path, watcher: LogWatcher, *, others: bool) -> None:
    """Where there is only ever one file the next goes on with it; otherwise nobody knows what was dropped as well."""
    ended = asyncio.Event()
    log.write_bytes(line(1, "one") + line(2, "begun", tag="P"))
    records = each_record(log, LogQuery(follow=True), watcher=watcher, ended=ended)
    async with asyncio.timeout(DEADLINE):
        assert (await anext(records)).data == b"one\n"
        if others:
            log.with_name("log.1").write_bytes(line(3, "other"))
        replaced(log, line(4, " and ended"))
        expected = [b"begun", b"other\n", b" and ended\n"] if others else [b"begun and ended\n"]
        assert [(await anext(records)).data for _ in expected] == expected
        ended.set()
        assert [record async for record in records] == []


def open_below(directory: Path) -> list[str]:
    """What this process has open there, whatever else it opens and closes meanwhile."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            targets.append(str(descriptor.readlink()))
    return [target for target in targets if target.startswith(f"{directory}/")]


async def test_abandoned_followers_leave_no_descriptor_and_no_watch(log: Path, watcher: LogWatcher) -> None:
    log.write_bytes(line(1, "a"))
    came = 0

    async def follow() -> None:
        nonlocal came
        async for _ in each_record(log, LogQuery(follow=True), watcher=watcher, ended=asyncio.Event()):
            came += 1

    tasks = [asyncio.create_task(follow()) for _ in range(100)]
    async with asyncio.timeout(60):
        while came < 50:  # the others are cancelled wherever they are
            await asyncio.sleep(0)
    assert open_below(log.parent)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert open_below(log.parent) == []
    assert not watcher._directories


def test_opening_follows_no_link(log: Path) -> None:
    log.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic"):
        open_all(log)


def test_files_that_move_up_while_they_are_opened_are_all_found(log: Path) -> None:
    for number in range(1, 30):
        log.with_name(f"log.{number}").write_bytes(line(number, "x"))
    log.write_bytes(line(0, "x"))
    stop = threading.Event()

    def move_up_and_down() -> None:
        while not stop.is_set():
            for first, last, step in ((29, 0, 1), (2, 31, -1)):
                for number in range(first, last, -step):
                    log.with_name(f"log.{number}").rename(log.with_name(f"log.{number + step}"))
                stop.wait(0.002)

    mover = threading.Thread(target=move_up_and_down)
    mover.start()
    try:
        for _ in range(50):
            opened = open_all(log)
            assert len({file.inode for file in opened}) == 30
            for file in opened:
                file.close()
    finally:
        stop.set()
        mover.join()
