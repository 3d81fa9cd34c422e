"""SQLite as both services use it: one writer thread with one connection, WAL, group commit.

Writes queued while a commit is under way share the next one, each inside its own savepoint, so one failing write
undoes itself alone. A write is acknowledged after the commit is on disk (`synchronous=FULL`). Reads run on a thread
and a connection of their own and never wait for a writer. Source: https://www.sqlite.org/wal.html

One process at a time owns a file, proven by a lock on `<file>.lock` that dies with the process. The lock is a file of
its own because closing any descriptor of the database itself would drop SQLite's POSIX locks (fcntl_locking(2)).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from common.errors import FailedPrecondition, ResourceExhausted, SlipwayError, Unavailable

T = TypeVar("T")

_MAX_WAITING_WRITES = 4096
_MAX_GROUP = 128
_BUSY_TIMEOUT = 10  # seconds; only a foreign program (a backup, a shell) can hold the file
_WAL_SIZE_LIMIT = 64 * 1024 * 1024  # bytes the log keeps after a checkpoint


@dataclass(slots=True)
class _Write:
    work: Callable[[sqlite3.Connection], Any]
    on_commit: Callable[[Any], None] | None
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def resolve(self) -> None:
        if self.error is None and self.on_commit is not None:
            try:
                self.on_commit(self.result)
            except Exception as error:
                self.error = error
        if self.done.done():
            return
        if isinstance(self.error, StopIteration):
            # A future refuses it (PEP 479), and one write's slip must not leave its neighbours unanswered.
            self.done.set_exception(RuntimeError("the work raised StopIteration"))
        elif self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)


class Database:
    """An async face on one SQLite file. Use as an async context manager, from one event loop.

    Entering makes the directory (0700) and the file (0600) when they are absent. It raises FailedPrecondition
    (reason `DATABASE_IN_USE`) when another process owns the file, and Unavailable when SQLite cannot open it.
    """

    def __init__(self, path: Path, *, schema: str) -> None:
        self._path = path
        self._schema = schema
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._waiting = 0  # writes not yet settled; touched on the event loop only
        self._writer = threading.Thread(target=self._write_loop, name=f"sqlite-writer:{path.name}", daemon=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-reader:{path.name}")
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # None: not open

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread cannot be stopped: let it end, then undo what it opened.
            await asyncio.wait([opening])
            self._release()
            raise
        self._loop = asyncio.get_running_loop()
        self._writer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every write that was accepted is committed and answered first."""
        self._loop = None
        await asyncio.to_thread(self._close)

    async def write(
        self, work: Callable[[sqlite3.Connection], T], *, on_commit: Callable[[T], None] | None = None
    ) -> T:
        """Run `work` in a transaction on the writer thread; return its result once it is durable.

        `on_commit` is called with that result on the event loop, in the order of the commits, before the caller goes
        on, and also when the caller was cancelled meanwhile: a cancelled caller does not undo the write.

        Raises whatever `work` raised (its changes undone); ResourceExhausted when the disk is full or thousands of
        writes already wait; Unavailable when the file cannot be written or is damaged, or the database is closed.
        """
        if self._loop is None:
            raise self._closed()
        if self._waiting >= _MAX_WAITING_WRITES:
            raise ResourceExhausted(
                f"{self._path}: {self._waiting} writes wait for the disk already; repeat later", reason="WRITES_WAITING"
            )
        write = _Write(work=work, on_commit=on_commit, done=self._loop.create_future())
        self._waiting += 1
        self._writes.put(write)
        try:
            result: T = await write.done
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error
        return result

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the reader thread; every statement in it sees the same committed state. Raises like `write`."""
        if self._loop is None:
            raise self._closed()
        try:
            return await self._loop.run_in_executor(self._reader, self._read_now, work)
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error

    def _closed(self) -> Unavailable:
        return Unavailable(f"{self._path}: the database is not open", reason="DATABASE_CLOSED")

    def _read_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        assert self._read_connection is not None
        self._read_connection.execute("BEGIN")
        try:
            return work(self._read_connection)
        finally:
            _rollback(self._read_connection)

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take_lock()
            # Before SQLite makes the file by the umask; the -wal and -shm files inherit this mode.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._path.chmod(0o600)
            self._write_connection = self._connect()
            self._write_connection.executescript(self._schema)
            self._read_connection = self._connect()
            self._read_connection.execute("PRAGMA query_only=ON")
        except sqlite3.Error as error:
            self._release()
            raise storage_error(error, self._path) from error
        except OSError as error:
            self._release()
            raise Unavailable(f"{self._path}: cannot be opened: {error.strerror}", reason="DATABASE_IO") from error
        except BaseException:
            self._release()
            raise

    def _take_lock(self) -> None:
        name = f"{self._path}.lock"
        self._lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FailedPrecondition(
                f"{self._path}: another process uses this database; stop it, or give this one a directory of its own",
                resource_type="database",
                resource_name=str(self._path),
                reason="DATABASE_IN_USE",
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT, cached_statements=256
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_SIZE_LIMIT}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _close(self) -> None:
        self._writes.put(None)
        self._writer.join()
        self._release()

    def _release(self) -> None:
        self._reader.shutdown(wait=True)
        for connection in (self._read_connection, self._write_connection):
            if connection is not None:
                connection.close()
        self._read_connection = self._write_connection = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write_loop(self) -> None:
        assert self._write_connection is not None
        while (first := self._writes.get()) is not None:
            group, more = self._drain(first)
            _commit(self._write_connection, group)
            # Every write's future belongs to the one loop, so one wake-up settles the group.
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody is left to be told
                first.done.get_loop().call_soon_threadsafe(self._settle, group)
            # An idle thread must not keep the last group's values alive.
            del first, group
            if not more:
                return

    def _drain(self, first: _Write) -> tuple[list[_Write], bool]:
        group = [first]
        while len(group) < _MAX_GROUP:
            try:
                write = self._writes.get_nowait()
            except queue.Empty:
                break
            if write is None:
                return group, False
            group.append(write)
        return group, True

    def _settle(self, group: list[_Write]) -> None:
        self._waiting -= len(group)
        for write in group:
            write.resolve()


def storage_error(error: sqlite3.Error, path: Path) -> SlipwayError | sqlite3.Error:
    """What a failing disk or file means to a caller; an error of the statement itself (a constraint, bad SQL) comes
    back unchanged. Source: https://www.sqlite.org/rescode.html"""
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match primary:
        case sqlite3.SQLITE_FULL:
            return ResourceExhausted(f"{path}: the disk is full, nothing was written; free space", reason="DISK_FULL")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            why = "is read-only; make it and its directory writable for this process"
            return Unavailable(f"{path}: the database {why}", reason="DATABASE_READ_ONLY")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            why = "is damaged; stop the service and restore it from a backup"
            return Unavailable(f"{path}: the database {why} ({error})", reason="DATABASE_CORRUPT")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN:
            why = "cannot be read or written; look at the disk and the kernel's log"
            return Unavailable(f"{path}: the database {why} ({error})", reason="DATABASE_IO")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            why = f"has been locked by another program for {_BUSY_TIMEOUT} s"
            return Unavailable(f"{path}: the database {why}", reason="DATABASE_LOCKED", retry_after=1.0)
        case sqlite3.SQLITE_NOMEM:
            return ResourceExhausted(f"{path}: SQLite is out of memory", reason="OUT_OF_MEMORY")
        case _:
            return error


def _commit(connection: sqlite3.Connection, group: list[_Write]) -> None:
    """One transaction for the group. Whatever happens, the thread lives and every write has its answer."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        for write in group:
            _run(connection, write)
        connection.execute("COMMIT")
    except BaseException as error:
        _rollback(connection)
        for write in group:
            write.error = write.error or error


def _run(connection: sqlite3.Connection, write: _Write) -> None:
    connection.execute("SAVEPOINT work")
    try:
        write.result = write.work(connection)
    except BaseException as error:
        if not connection.in_transaction:
            # A full disk and its like roll back the whole transaction (https://www.sqlite.org/lang_transaction.html),
            # the neighbours' writes included: they all get this error.
            raise
        write.error = error
        connection.execute("ROLLBACK TO work")
    connection.execute("RELEASE work")


def _rollback(connection: sqlite3.Connection) -> None:
    # SQLite rolls back even when it reports an error of the disk while doing so.
    with contextlib.suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
