"""What the embedded store promises beyond the Protocol: durability, its bounds, its files."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import api_service.store.change_feed
import api_service.store.key_space
import api_service.store.sqlite_store
from api_service.store.sqlite_store import SqliteStore
from api_service.store.store import Change, Delete, Entry, Put
from common.errors import FailedPrecondition, OutOfRange, ResourceExhausted, Unavailable

_PATIENCE = 60

_WRITER = """
import asyncio, sys
from pathlib import Path
from api_service.store.sqlite_store import SqliteStore
from api_service.store.store import Put

async def write(store, name):
    number = 0
    while True:
        number += 1
        revision = await store.commit(Put(key=f"{name}/{number}", value=b"x" * 500), Put(key=name, value=b""))
        sys.stdout.write(f"{name}/{number} {revision}\\n")
        sys.stdout.flush()

async def main():
    async with SqliteStore(Path(sys.argv[1]), history_limit=1000) as store:
        await asyncio.gather(*(write(store, f"{sys.argv[2]}-{n}") for n in range(4)))

asyncio.run(main())
"""


def _acknowledged_until_killed(path: Path, run: int, after_lines: int) -> dict[str, int]:
    """Key to revision, as a writing process printed them before it was killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path), str(run)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    with process, process.stdout as output:
        lines = [output.readline() for _ in range(after_lines)]
        process.send_signal(signal.SIGKILL)
        lines += output.readlines()
    assert process.returncode == -signal.SIGKILL
    pairs = [line.decode().split() for line in lines if line.endswith(b"\n")]
    return {key: int(revision) for key, revision in pairs}


async def test_nothing_acknowledged_is_lost_to_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    chance = random.Random(4)
    promised: dict[str, int] = {}
    for run in range(4):
        acknowledged = await asyncio.to_thread(_acknowledged_until_killed, path, run, chance.randint(1, 400))
        assert acknowledged
        promised |= acknowledged
        async with SqliteStore(path, history_limit=1000) as store:
            held = {entry.key: entry.revision for entry in await store.list("")}
            assert promised.items() <= held.items()
            latest = await store.revision()
            assert latest >= max(promised.values())
            assert await store.commit(Put(key=f"between/{run}", value=b"")) == latest + 1
            async with asyncio.timeout(_PATIENCE):
                changes = store.watch("", after=max(0, latest + 1 - 1000))
                revisions = set()
                while latest + 1 not in revisions:
                    revisions.add((await anext(changes)).revision)
            assert revisions == set(range(max(0, latest + 1 - 1000) + 1, latest + 2)), "the history has a gap"


async def test_everything_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SqliteStore(path) as store:
        await store.commit(Put(key="a", value=b"1"), Put(key="b", value=b"1"))
        await store.commit(Delete(key="a"))
        await store.commit(Put(key="b", value=b"2"))
    async with SqliteStore(path) as store:
        assert list(await store.list("")) == [Entry(key="b", value=b"2", revision=3)]
        assert await store.revision() == 3
        changes = store.watch("", after=1)
        assert [await anext(changes) for _ in range(2)] == [
            Change(key="a", value=None, revision=2),
            Change(key="b", value=b"2", revision=3),
        ]
        assert await store.commit(Put(key="c", value=b"")) == 4
        assert (await anext(changes)).key == "c"


async def test_kept_history_survives_and_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SqliteStore(path, history_limit=10) as store:
        for _ in range(200):
            await store.commit(Put(key="k", value=b""))
    with sqlite3.connect(path) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM history").fetchone()
    connection.close()
    assert rows <= 10 + 64
    async with SqliteStore(path, history_limit=10) as store:
        with pytest.raises(OutOfRange):
            await anext(store.watch("k", after=189))
        assert (await anext(store.watch("k", after=190))).revision == 191


async def test_raising_the_limit_does_not_promise_what_was_dropped(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SqliteStore(path, history_limit=10) as store:
        for _ in range(128):
            await store.commit(Put(key="k", value=b""))
    async with SqliteStore(path, history_limit=1000) as store:
        with pytest.raises(OutOfRange):
            await anext(store.watch("k", after=117))
        assert (await anext(store.watch("k", after=118))).revision == 119


async def test_watcher_beyond_memory_reads_the_history_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_service.store.sqlite_store, "_RECENT_REVISIONS", 3)
    monkeypatch.setattr(api_service.store.sqlite_store, "_BATCH_CHANGES", 4)
    async with SqliteStore(tmp_path / "store.db") as store:
        changes = store.watch("k%", after=0)
        for number in range(50):
            await store.commit(
                *(Put(key=f"k%{number}/{n}", value=b"") for n in range(number % 6)),
                Put(key="other", value=b""),
                Put(key=f"kx{number}", value=b""),
                Put(key=f"K%{number}", value=b""),
            )
        expected = [f"k%{number}/{n}" for number in range(50) for n in range(number % 6)]
        assert [(await anext(changes)).key for _ in expected] == expected
        await store.commit(Put(key="k%live", value=b""))
        assert (await anext(changes)).key == "k%live"


def test_history_trimmed_while_a_watcher_reads_is_out_of_range() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(api_service.store.sqlite_store._SCHEMA)
    for _ in range(64):
        api_service.store.sqlite_store._apply(connection, operations=[Put(key="k", value=b"")], history_limit=10)
    read = functools.partial(api_service.store.sqlite_store._history, connection, prefix="", upto=64)
    with pytest.raises(OutOfRange):
        read(after=53)
    changes, complete = read(after=54)
    assert ([change.revision for change in changes], complete) == (list(range(55, 65)), 64)
    connection.close()


async def test_memory_of_the_feed_is_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_service.store.sqlite_store, "_RECENT_BYTES", 1000)
    async with SqliteStore(tmp_path / "store.db") as store:
        for number in range(20):
            await store.commit(Put(key="k", value=bytes(300)))
            await store.commit(Put(key="k", value=bytes(5000 + number)))  # larger than the bound by itself
        feed = store._feed
        assert feed._recent_bytes <= 1000
        assert feed._recent_bytes == sum(api_service.store.change_feed._bytes(c) for _, c in feed._recent.values())
        changes = store.watch("k", after=0)
        sizes = [len((await anext(changes)).value or b"") for _ in range(40)]
        assert sizes == [size for number in range(20) for size in (300, 5000 + number)]


async def test_quota_bounds_what_is_held_and_removal_makes_room(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "store.db", quota=10_000) as store:
        await store.commit(Put(key="a", value=bytes(6000)))
        with pytest.raises(ResourceExhausted, match="raise the quota") as caught:
            await store.commit(Put(key="b", value=bytes(6000)))
        assert caught.value.reason == "STORE_FULL"
        await store.commit(Put(key="a", value=bytes(9000)))  # in place of the old value: fits
        await store.commit(Put(key="a", value=bytes(6000)))
        await store.commit(Delete(key="a"), Put(key="b", value=bytes(9000)))
        await store.commit(Delete(key="b"))
        await store.commit(Put(key="a", value=bytes(9000)))
    async with SqliteStore(tmp_path / "store.db", quota=5000) as store:
        with pytest.raises(ResourceExhausted):
            await store.commit(Put(key="b", value=b"1"))
        await store.commit(Put(key="a", value=bytes(8000)))  # over the quota still, but it shrinks
        await store.commit(Delete(key="a"))
        await store.commit(Put(key="b", value=b"1"))


async def test_what_is_there_can_change_and_go_when_nothing_new_fits(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "store.db", quota=1000, reserve=500) as store:
        await store.commit(Put(key="a", value=bytes(900)))
        with pytest.raises(ResourceExhausted):
            await store.commit(Put(key="b", value=bytes(200)))
        await store.commit(Put(key="a", value=bytes(900)), Put(key="event", value=bytes(200)))
        await store.commit(Delete(key="event"), Put(key="event-2", value=bytes(300)))
        with pytest.raises(ResourceExhausted):  # nothing goes or changes
            await store.commit(Delete(key="nothing"), Put(key="event-3", value=bytes(100)))
        with pytest.raises(ResourceExhausted):  # the reserve has an end
            await store.commit(Put(key="a", value=bytes(900)), Put(key="event-3", value=bytes(300)))
        await store.commit(Delete(key="a"), Put(key="event-3", value=bytes(300)))


async def test_second_process_is_refused(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "store.db"):
        with pytest.raises(FailedPrecondition, match="another process"):
            async with SqliteStore(tmp_path / "store.db"):
                pytest.fail("two owners of one file")
    async with SqliteStore(tmp_path / "store.db") as store:
        await store.commit(Put(key="a", value=b""))


async def test_closed_store_refuses_commits(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "store.db") as store:
        pass
    with pytest.raises(Unavailable, match="not open"):
        await store.commit(Put(key="a", value=b""))


async def test_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "api" / "store.db"
    umask = os.umask(0)
    try:
        async with SqliteStore(path) as store:
            await store.commit(Put(key="a", value=b""))
            assert path.parent.stat().st_mode & 0o777 == 0o700
            modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm", "store.db.lock"), 0o600)


def test_the_files_format_has_room_for_every_commit() -> None:
    assert api_service.store.sqlite_store._PLACES >= api_service.store.key_space.MAX_OPERATIONS
