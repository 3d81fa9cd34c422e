"""Threads of their own for copies: a file system that hangs, or a client that does, holds up nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from common.errors import DeadlineExceeded, ResourceExhausted
from executor_service.threads import to_the_end

T = TypeVar("T")
Check = Callable[[], None]
Sink = Callable[[bytes], None]

_MAX_COPIES = 16
_CHUNK = 256 * 1024  # bytes
_WAITING = 4  # chunks between the thread and the client
_STALL = 300.0  # seconds a client may take for one chunk


class Stopped(Exception):
    """Nobody wants the work any more; nobody sees this."""


class CopyThreads:
    """Every method raises ResourceExhausted when too many copies are under way already. `stall` is in seconds."""

    def __init__(self, *, limit: int = _MAX_COPIES, stall: float = _STALL) -> None:
        self._limit = limit
        self._stall = stall
        self._busy = 0
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix="copy")

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[CopyThreads]:
        """Leaving does not wait for a thread that hangs in a file system."""
        threads = cls()
        try:
            yield threads
        finally:
            threads._pool.shutdown(wait=False)

    async def finish(self, work: Callable[[Check], T]) -> T:
        """Run `work`, which calls what it is given every now and then: it raises once the caller is gone. A cancel is
        answered when the thread has ended."""
        stopped = threading.Event()

        def check() -> None:
            if stopped.is_set():
                raise Stopped

        with self._one_more():
            running = asyncio.get_running_loop().run_in_executor(self._pool, work, check)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                stopped.set()
                await to_the_end(asyncio.wait({running}))
                running.exception()
                raise

    async def stream(self, work: Callable[[Sink], None]) -> AsyncGenerator[bytes]:
        """What `work` writes, in chunks. It waits while a few of them are not taken; the generator's end ends it."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        pipe = _Pipe(lambda chunk: loop.call_soon_threadsafe(chunks.put_nowait, chunk), stall=self._stall)
        with self._one_more():
            running = loop.run_in_executor(self._pool, pipe.run, work)
            try:
                while (chunk := await chunks.get()) is not None:
                    yield chunk
                    pipe.taken()
                await running
            finally:
                pipe.stop()
                await to_the_end(asyncio.wait({running}))
                running.exception()

    @contextlib.contextmanager
    def _one_more(self) -> Iterator[None]:
        if self._busy >= self._limit:
            raise ResourceExhausted(
                f"{self._busy} copies are under way on this node already; repeat the call when one has ended",
                reason="TOO_MANY_COPIES",
            )
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1


class _Pipe:
    """The writing end, in the thread."""

    def __init__(self, put: Callable[[bytes | None], object], *, stall: float) -> None:
        self._put = put
        self._stall = stall
        self._room = threading.Semaphore(_WAITING)
        self._stopped = threading.Event()
        self._buffer = bytearray()

    def run(self, work: Callable[[Sink], None]) -> None:
        try:
            work(self._write)
            if self._buffer:
                self._send()
        finally:
            self._put(None)

    def taken(self) -> None:
        self._room.release()

    def stop(self) -> None:
        self._stopped.set()
        self._room.release()

    def _write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _CHUNK:
            self._send()

    def _send(self) -> None:
        if not self._room.acquire(timeout=self._stall):
            raise DeadlineExceeded(f"the client has taken nothing for {self._stall:g} s", reason="CLIENT_STALLED")
        if self._stopped.is_set():
            raise Stopped
        self._put(bytes(self._buffer))
        self._buffer.clear()
