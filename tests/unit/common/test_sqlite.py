"""The SQLite writer: isolation of the writes in a group, answers whatever happens, errors for people."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import common.sqlite
from common.errors import FailedPrecondition, ResourceExhausted, Unavailable
from common.sqlite import Database, storage_error

_SCHEMA = "CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v BLOB) STRICT;"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "test.db", schema=_SCHEMA) as opened:
        yield opened


def _insert(key: str, value: bytes = b"") -> Callable[[sqlite3.Connection], None]:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (?, ?)", (key, value))

    return work


def _keys(connection: sqlite3.Connection) -> list[str]:
    return [key for (key,) in connection.execute("SELECT k FROM t ORDER BY k")]


class _Gate:
    """Holds the writer thread inside one write, so that what is queued meanwhile shares the next commit."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._open = threading.Event()

    def work(self, _connection: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._open.wait(10)

    async def hold(self, database: Database) -> asyncio.Task[None]:
        held = asyncio.create_task(database.write(self.work))
        assert await asyncio.to_thread(self._entered.wait, 10)
        return held

    def release(self) -> None:
        self._open.set()


async def test_write_is_seen_by_a_read(database: Database) -> None:
    await database.write(_insert("a"))
    assert await database.read(_keys) == ["a"]


async def test_connections_are_durable_and_in_wal(database: Database) -> None:
    def pragmas(connection: sqlite3.Connection) -> tuple[object, ...]:
        return tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        )

    assert await database.write(pragmas) == ("wal", 2, 1)


async def test_failing_write_undoes_itself_alone(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES ('undone', NULL)")
        raise KeyError("mine")

    gate = _Gate()
    held = await gate.hold(database)
    group = [
        asyncio.create_task(database.write(work))
        for work in (_insert("a"), fail, _insert("b"), _insert("a"), _insert("c"))
    ]
    await asyncio.sleep(0)
    gate.release()
    outcomes = await asyncio.gather(*group, return_exceptions=True)
    await held
    assert [type(outcome) for outcome in outcomes] == [
        type(None), KeyError, type(None), sqlite3.IntegrityError, type(None)
    ]  # fmt: skip
    assert await database.read(_keys) == ["a", "b", "c"]


async def test_queued_writes_share_one_commit(database: Database) -> None:
    commits: list[str] = []
    await database.write(lambda connection: connection.set_trace_callback(commits.append))
    gate = _Gate()
    held = await gate.hold(database)
    group = [asyncio.create_task(database.write(_insert(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    commits.clear()
    gate.release()
    await asyncio.gather(held, *group)
    assert commits.count("COMMIT") == 2, "the held write's, and one for the fifty"


async def test_writer_survives_whatever_the_work_raises(database: Database) -> None:
    def exhausted(_connection: sqlite3.Connection) -> None:
        next(iter(()))

    def leave(_connection: sqlite3.Connection) -> None:
        raise SystemExit(3)

    def commit_by_itself(connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")

    with pytest.raises(RuntimeError, match="StopIteration"):
        await database.write(exhausted)
    with pytest.raises(SystemExit):
        # A task of its own would take the loop down with it, as asyncio does for SystemExit.
        await database.write(leave)
    with pytest.raises(sqlite3.OperationalError, match="savepoint"):
        await database.write(commit_by_itself)
    await database.write(_insert("after"))
    assert await database.read(_keys) == ["after"]


async def test_full_disk_is_resource_exhausted_and_passes(database: Database) -> None:
    await database.write(_insert("before"))
    await database.write(lambda connection: connection.execute("PRAGMA max_page_count=8").fetchone())
    gate = _Gate()
    held = await gate.hold(database)
    group = [
        asyncio.create_task(database.write(_insert(key, bytes(size))))
        for key, size in (("a", 1), ("b", 10**6), ("c", 1))
    ]
    await asyncio.sleep(0)
    gate.release()
    outcomes = await asyncio.gather(*group, return_exceptions=True)
    await asyncio.gather(held, return_exceptions=True)
    kept = [key for key, outcome in zip("abc", outcomes, strict=True) if outcome is None]
    refused = outcomes[1]
    assert isinstance(refused, ResourceExhausted)
    assert refused.reason == "DISK_FULL"
    assert "free space" in refused.message
    assert await database.read(_keys) == sorted(["before", *kept]), "acknowledged is what is there"
    await database.write(lambda connection: connection.execute("PRAGMA max_page_count=100000").fetchone())
    await database.write(_insert("later", bytes(10**6)))


async def test_neighbours_of_a_write_that_lost_the_transaction_are_told(database: Database) -> None:
    def lose(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # as SQLite does by itself on some errors of the disk
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    gate = _Gate()
    held = await gate.hold(database)
    group = [asyncio.create_task(database.write(work)) for work in (_insert("a"), lose, _insert("b"))]
    await asyncio.sleep(0)
    gate.release()
    outcomes = await asyncio.gather(*group, return_exceptions=True)
    await held
    assert [getattr(outcome, "reason", None) for outcome in outcomes] == ["DISK_FULL"] * 3
    assert await database.read(_keys) == []
    await database.write(_insert("later"))


async def test_read_only_is_unavailable(database: Database) -> None:
    await database.write(lambda connection: connection.execute("PRAGMA query_only=ON"))
    with pytest.raises(Unavailable, match="writable") as caught:
        await database.write(_insert("a"))
    assert caught.value.reason == "DATABASE_READ_ONLY"


async def test_reader_cannot_write(database: Database) -> None:
    with pytest.raises(Unavailable):
        await database.read(_insert("a"))


async def test_read_sees_one_state(database: Database) -> None:
    inside, written = threading.Event(), threading.Event()

    def twice(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
        first = _keys(connection)
        inside.set()
        assert written.wait(10)
        return first, _keys(connection)

    reading = asyncio.create_task(database.read(twice))
    assert await asyncio.to_thread(inside.wait, 10)
    await database.write(_insert("a"))
    written.set()
    assert await reading == ([], [])
    assert await database.read(_keys) == ["a"]


async def test_cancelled_caller_does_not_undo_the_write_and_its_callback_runs(database: Database) -> None:
    seen: list[str] = []
    gate = _Gate()
    held = await gate.hold(database)

    def work(connection: sqlite3.Connection) -> str:
        _insert("a")(connection)
        return "a"

    write = asyncio.create_task(database.write(work, on_commit=seen.append))
    await asyncio.sleep(0)
    write.cancel()
    gate.release()
    await asyncio.gather(held, write, return_exceptions=True)
    assert write.cancelled()
    await database.write(_insert("b"))
    assert seen == ["a"]
    assert await database.read(_keys) == ["a", "b"]


async def test_callbacks_come_in_the_order_of_commits_and_not_for_what_failed(database: Database) -> None:
    order: list[int] = []

    def number(value: int) -> Callable[[sqlite3.Connection], int]:
        def work(connection: sqlite3.Connection) -> int:
            _insert(str(value % 30))(connection)
            return value

        return work

    writes = [database.write(number(value), on_commit=order.append) for value in range(60)]
    await asyncio.gather(*writes, return_exceptions=True)
    assert order == list(range(30))


async def test_waiting_writes_are_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common.sqlite, "_MAX_WAITING_WRITES", 5)
    gate = _Gate()
    held = await gate.hold(database)
    waiting = [asyncio.create_task(database.write(_insert(str(n)))) for n in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted, match="repeat later") as caught:
        await database.write(_insert("too many"))
    assert caught.value.reason == "WRITES_WAITING"
    gate.release()
    await asyncio.gather(held, *waiting)
    await database.write(_insert("room again"))


async def test_leaving_commits_what_was_accepted(tmp_path: Path) -> None:
    async with Database(tmp_path / "test.db", schema=_SCHEMA) as database:
        gate = _Gate()
        held = await gate.hold(database)
        writes = [asyncio.create_task(database.write(_insert(str(n)))) for n in range(200)]
        await asyncio.sleep(0)
        gate.release()
    assert all(write.done() for write in (held, *writes))
    async with Database(tmp_path / "test.db", schema=_SCHEMA) as database:
        assert len(await database.read(_keys)) == 200


async def test_closed_database_answers(tmp_path: Path) -> None:
    database = Database(tmp_path / "test.db", schema=_SCHEMA)
    with pytest.raises(Unavailable, match="not open"):
        await database.write(_insert("early"))
    async with database:
        pass
    with pytest.raises(Unavailable, match="not open"):
        await database.write(_insert("late"))
    with pytest.raises(Unavailable, match="not open"):
        await database.read(_keys)


async def test_closing_leaves_no_thread_and_no_lock(tmp_path: Path) -> None:
    for _ in range(3):
        async with Database(tmp_path / "named.db", schema=_SCHEMA) as database:
            await database.write(lambda _connection: None)
            await database.read(_keys)
    assert not [thread for thread in threading.enumerate() if "named.db" in thread.name]


async def test_two_owners_are_refused(tmp_path: Path) -> None:
    async with Database(tmp_path / "test.db", schema=_SCHEMA):
        with pytest.raises(FailedPrecondition, match="another process") as caught:
            async with Database(tmp_path / "test.db", schema=_SCHEMA):
                pytest.fail("two owners of one file")
        assert caught.value.reason == "DATABASE_IN_USE"


async def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    path.write_bytes(b"this is no database, whatever its name may say" * 200)
    with pytest.raises(Unavailable, match="backup") as caught:
        async with Database(path, schema=_SCHEMA):
            pytest.fail("opened a damaged file")
    assert caught.value.reason == "DATABASE_CORRUPT"
    assert str(path) in caught.value.message
    path.unlink()
    async with Database(path, schema=_SCHEMA):
        pass  # the failed opening has given the lock back


async def test_damaged_page_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    async with Database(path, schema=_SCHEMA) as database:
        for number in range(50):
            await database.write(_insert(str(number), bytes(2000)))
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096 * 8)
    async with Database(path, schema=_SCHEMA) as database:
        with pytest.raises(Unavailable) as caught:
            await database.read(lambda connection: connection.execute("SELECT sum(length(v)) FROM t").fetchone())
        assert caught.value.reason == "DATABASE_CORRUPT"


async def test_directory_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be opened") as caught:
        async with Database(tmp_path / "file" / "test.db", schema=_SCHEMA):
            pytest.fail("opened below a file")
    assert caught.value.reason == "DATABASE_IO"


async def test_existing_wide_file_is_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    path.touch(mode=0o666)
    path.chmod(0o666)
    async with Database(path, schema=_SCHEMA) as database:
        await database.write(_insert("a"))
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (sqlite3.SQLITE_FULL, ResourceExhausted, "DISK_FULL"),
        (sqlite3.SQLITE_NOMEM, ResourceExhausted, "OUT_OF_MEMORY"),
        (sqlite3.SQLITE_READONLY, Unavailable, "DATABASE_READ_ONLY"),
        (sqlite3.SQLITE_READONLY_DBMOVED, Unavailable, "DATABASE_READ_ONLY"),
        (sqlite3.SQLITE_IOERR_FSYNC, Unavailable, "DATABASE_IO"),
        (sqlite3.SQLITE_CANTOPEN, Unavailable, "DATABASE_IO"),
        (sqlite3.SQLITE_CORRUPT, Unavailable, "DATABASE_CORRUPT"),
        (sqlite3.SQLITE_NOTADB, Unavailable, "DATABASE_CORRUPT"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Unavailable, "DATABASE_LOCKED"),
    ],
)
def test_errors_of_the_disk_have_a_class(code: int, kind: type[Exception], reason: str) -> None:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    mapped = storage_error(error, Path("/var/lib/x.db"))
    assert isinstance(mapped, kind)
    assert getattr(mapped, "reason", None) == reason
    assert "/var/lib/x.db" in str(mapped)


def test_errors_of_the_statement_stay_what_they_are() -> None:
    error = sqlite3.IntegrityError("UNIQUE constraint failed")
    error.sqlite_errorcode = sqlite3.SQLITE_CONSTRAINT_UNIQUE
    assert storage_error(error, Path("x")) is error
