"""Logs of real containers: both streams, a flood with rotation, following it, and the cap on disk."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_service.container import LogLimits
from executor_service.logs.files import inode_of, rotated_files
from executor_service.logs.reader import LogQuery, read_log
from executor_service.logs.record import LogRecord, Stream
from executor_service.logs.rotation import LogRotator, rotate
from executor_service.logs.watch import LogWatcher
from executor_service.oci.conmon import ConmonFiles
from executor_service.oci.runtime import CreatedProcess
from tests.fixtures.oci import (
    DEADLINE,
    UNAVAILABLE,
    Container,
    Containers,
    containers_in,
    make_rootfs,
)

pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)

LINES = 40_000
# In a hundred bursts, so that rotations fall into and between them; each twenty of them end with one.
FLOOD = (
    "sh",
    "-c",
    "n=0; while [ $n -lt 100 ]; do seq $((n*400+1)) $((n*400+400)); n=$((n+1)); usleep 3000;"
    "while [ $((n%20)) = 0 ] && [ ! -e /rotated-$((n/20)) ]; do usleep 3000; done; done",
)


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    with containers_in(tmp_path, make_rootfs(tmp_path / "rootfs"), "crun") as made:
        yield made


async def follow(container: Container, watcher: LogWatcher, ended: asyncio.Event) -> list[LogRecord]:
    query = LogQuery(follow=True)
    batches = read_log(container.bundle.log_path, query, watcher=watcher, ended=ended)
    return [record async for batch in batches for record in batch]


async def end(containers: Containers, container: Container, created: CreatedProcess, ended: asyncio.Event) -> None:
    await containers.ended(container, created)
    ended.set()


async def test_a_flood_is_followed_across_rotations_without_losing_or_doubling_a_line(containers: Containers) -> None:
    container = containers.make(*FLOOD)
    control = ConmonFiles(bundle=container.bundle.directory).control
    ended, rotations = asyncio.Event(), 0
    created = await containers.runtime.create(container.bundle)
    async with LogWatcher.open() as watcher, asyncio.timeout(DEADLINE * 2):
        following = asyncio.create_task(follow(container, watcher, ended))
        await containers.runtime.start(container.id, runtime="crun")
        ending = asyncio.create_task(end(containers, container, created, ended))
        while not ended.is_set():
            if await asyncio.to_thread(rotate, container.bundle.log_path, control=control, max_files=1000):
                rotations += 1
                (containers.rootfs / f"rotated-{rotations}").touch()
            await asyncio.sleep(0)
        await ending
        records = await following
        # Whatever followed, the files themselves hold every line too.
        query = LogQuery()
        batches = read_log(container.bundle.log_path, query, watcher=watcher, ended=ended)
        read = [record async for batch in batches for record in batch]
    assert rotations > 3
    assert [int(record.data) for record in records] == list(range(1, LINES + 1))
    assert read == records
    await containers.delete(container)


async def test_the_rotator_keeps_a_log_under_its_cap(containers: Containers) -> None:
    """Each burst fills a file and waits for its rotation, so how much is on disk does not depend on the machine."""
    limits = LogLimits(max_size=512 * 1024, max_files=3)
    burst, bursts = 3000 * 250, 20  # bytes; a line's time, stream and tag are what 250 is more than 200
    os.mkfifo(containers.rootfs / "go")
    script = f"while read -r _; do yes {'x' * 200} | head -n 3000; done < /go; echo last"
    container = containers.make("sh", "-c", script)
    log, control = container.bundle.log_path, ConmonFiles(bundle=container.bundle.directory).control
    created = await containers.runtime.create(container.bundle)
    ended, largest = asyncio.Event(), 0
    async with LogRotator.open() as rotator, asyncio.timeout(60):
        rotator.watch(container.id, log=log, control=control, limits=limits)
        with (containers.rootfs / "go").open("r+b", buffering=0) as go:  # for reading too, so that it opens at once
            await containers.runtime.start(container.id, runtime="crun")
            for _ in range(bursts):
                before = inode_of(log)
                go.write(b"\n")
                while inode_of(log) == before:
                    largest = max(largest, disk_usage(log))
                    await asyncio.sleep(0.005)
        await end(containers, container, created, ended)
        rotator.forget(container.id)
    files = rotated_files(log)
    assert 1 <= len(files) <= limits.max_files - 1
    # A burst that was rotated before it ended leaves the rest of it to the next file, so each file holds at most two.
    assert largest < 5 * burst
    # The last line may have been rotated away itself.
    newest = container.log or dict(files)[1].read_text()
    assert newest.splitlines()[-1].endswith("stdout F last")
    await containers.delete(container)


async def test_lines_longer_than_a_chunk_come_whole_and_streams_stay_apart(containers: Containers) -> None:
    script = "head -c 100000 /dev/zero | tr '\\0' a; echo; echo short >&2; printf unended"
    container, _ = await containers.run("sh", "-c", script)
    async with LogWatcher.open() as watcher:
        log = container.bundle.log_path
        batches = read_log(log, LogQuery(), watcher=watcher, ended=asyncio.Event())
        records = [record async for batch in batches for record in batch]
    out = [record.data for record in records if record.stream is Stream.STDOUT]
    assert out[0] == b"a" * 100_000 + b"\n"
    assert b"".join(out[1:]).rstrip(b"\n") == b"unended"
    assert [record.data for record in records if record.stream is Stream.STDERR] == [b"short\n"]


async def test_conmons_own_limit_is_the_last_resort(containers: Containers) -> None:
    container = containers.make("sh", "-c", "seq 1 20000", log_size_limit=100_000)
    created = await containers.start(container)
    await containers.ended(container, created)
    assert disk_usage(container.bundle.log_path) <= 110_000
    await containers.delete(container)


@pytest.mark.parametrize("rotations", [0, 1, 2])
async def test_what_conmon_threw_away_leaves_no_line_that_never_was(containers: Containers, rotations: int) -> None:
    """Between the file that was rotated and the one that is written, whether it was rotated meanwhile or not."""
    line = b"abcdefghijklmnopqrstuvwxyz0123456789" * 7 + b"\n"
    container = containers.make("yes", line.decode().rstrip(), log_size_limit=8 * 1024 * 1024)
    control = ConmonFiles(bundle=container.bundle.directory).control
    log, ended = container.bundle.log_path, asyncio.Event()
    created = await containers.start(container)
    async with LogWatcher.open() as watcher, asyncio.timeout(DEADLINE):
        # In the middle of a line, as nearly always: conmon reads 8 KiB at a time.
        while disk_usage(log) < 1024 * 1024:
            await asyncio.sleep(0)
        while not await asyncio.to_thread(rotate, log, control=control, max_files=1000):
            await asyncio.sleep(0)
        following = asyncio.create_task(follow(container, watcher, ended))
        rotated_to = inode_of(log)
        while inode_of(log) == rotated_to:
            await asyncio.sleep(0)
        for _ in range(rotations):
            while not await asyncio.to_thread(rotate, log, control=control, max_files=1000):
                await asyncio.sleep(0)
        await containers.runtime.kill(container.id, created.container, signal.SIGKILL)
        await end(containers, container, created, ended)
        batches = read_log(log, LogQuery(), watcher=watcher, ended=ended)
        read = [record.data async for batch in batches for record in batch]
        followed = [record.data for record in await following]
    for records in (read, followed):
        assert {len(data) for data in records} > {len(line)}
        assert all(line.endswith(data) if data.endswith(b"\n") else line.startswith(data) for data in records)
    await containers.delete(container)


async def test_without_a_monitor_nothing_is_rotated_and_nothing_lost(containers: Containers) -> None:
    container, _ = await containers.run("echo", "kept")
    control = ConmonFiles(bundle=container.bundle.directory).control
    os.mkfifo(control)
    assert not rotate(container.bundle.log_path, control=control, max_files=3)
    assert rotated_files(container.bundle.log_path) == []
    assert container.output == ["kept"]
    control.unlink()


def disk_usage(log: Path) -> int:
    total = 0
    for path in (log, *(path for _, path in rotated_files(log))):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
