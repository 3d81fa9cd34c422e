"""SQLite as both services use it: one writer thread with one connection, WAL, group commit.

Writes queued while a commit is under way share the next one, each inside its own savepoint, so one failing write
undoes itself alone. A write is acknowledged after the commit is on disk (`synchronous=FULL`). Reads run on a thread
and a connection of their own and never wait for a writer. Source: https://www.sqlite.org/wal.html
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_MAX_QUEUED_WRITES = 4096
_MAX_GROUP = 128


@dataclass(slots=True)
class _Write:
    work: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            # The loop closed while the commit was under way: nobody is left to be told.
            return

    def _resolve(self) -> None:
        if self.done.done():
            return
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.result)


class Database:
    """An async face on one SQLite file. Use as an async context manager."""

    def __init__(self, path: Path, *, schema: str) -> None:
        self._path = path
        self._schema = schema
        self._writes: queue.Queue[_Write | None] = queue.Queue(_MAX_QUEUED_WRITES)
        self._writer = threading.Thread(target=self._write_loop, name=f"sqlite-writer:{path.name}", daemon=True)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-reader:{path.name}")
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._open)
        self._writer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._close)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction on the writer thread; return its result once it is durable.

        Raises whatever `work` raised (its changes undone), `sqlite3.OperationalError` when the disk refuses, and
        `queue.Full` when thousands of writes already wait. A caller that is cancelled does not undo the write.
        """
        loop = asyncio.get_running_loop()
        write = _Write(work=work, loop=loop, done=loop.create_future())
        self._writes.put_nowait(write)
        result: T = await write.done
        return result

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the reader thread against the last committed state."""
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._read_now, work)

    def _read_now(self, work: Callable[[sqlite3.Connection], T]) -> T:
        assert self._read_connection is not None
        return work(self._read_connection)

    def _open(self) -> None:
        self._write_connection = self._connect()
        self._write_connection.executescript(self._schema)
        self._read_connection = self._connect()
        self._read_connection.execute("PRAGMA query_only=ON")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=10)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _close(self) -> None:
        self._writes.put(None)
        self._writer.join()
        self._reader.shutdown(wait=True)
        for connection in (self._read_connection, self._write_connection):
            if connection is not None:
                connection.close()

    def _write_loop(self) -> None:
        assert self._write_connection is not None
        while (first := self._writes.get()) is not None:
            group, more = self._drain(first)
            self._commit(self._write_connection, group)
            for write in group:
                write.settle()
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

    def _commit(self, connection: sqlite3.Connection, group: list[_Write]) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            for write in group:
                self._run(connection, write)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for write in group:
                write.error = write.error or error

    def _run(self, connection: sqlite3.Connection, write: _Write) -> None:
        connection.execute("SAVEPOINT work")
        try:
            write.result = write.work(connection)
        except Exception as error:
            write.error = error
            connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
