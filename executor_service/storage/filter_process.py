"""Starts `filter_program` for a layer and listens to it: the executor's side of their conversation.

The program is nobody and may have been taken over by what it read, so what it says is looked at as a stranger's: one
line is not longer than a name can make it, and directories are found without leaving the layer.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import structlog

from common.errors import Internal, InvalidArgument, ResourceExhausted, SlipwayError
from executor_service.kernel import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from executor_service.run import Completed, Descriptor, run
from executor_service.storage import filter_program
from executor_service.storage.filter_program import Order, Passed
from executor_service.storage.layer_filter import Count, uncounted
from executor_service.storage.refusals import took_too_long
from executor_service.threads import to_the_end

_log = structlog.get_logger(__name__)
T = TypeVar("T")

_PROGRAM = (sys.executable, "-I", "-m", filter_program.__name__)
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}  # its threads wait for each other anyhow
_LINE = 1 << 16  # bytes; a name has 4095, each of them six in JSON
_OPAQUE = "trusted.overlay.opaque"
_REFUSALS: dict[str, type[SlipwayError]] = {each.__name__: each for each in (InvalidArgument, ResourceExhausted)}


class _BrokenError(Exception):
    """It ended, or said what it never says."""


class FilterProcess:
    """One running program. Its methods raise what it refused the layer with (InvalidArgument, ResourceExhausted,
    OSError), ResourceExhausted (TIMEOUT), and Internal when it failed; after that, and when they were cancelled, it is
    of no more use."""

    def __init__(
        self, control: socket.socket, lines: BinaryIO, running: asyncio.Task[Completed], pool: Executor
    ) -> None:
        self._control = control
        self._lines = lines
        self._running = running
        self._pool = pool

    async def passed(self, room: Callable[[], None], count: Count = uncounted) -> Passed:
        """Until tar has everything; `room`, called in a thread every few bytes, and `count` end it by raising."""
        return await self._listen(lambda: self._until_passed(room, count))

    async def recorded(self, room: Callable[[], None]) -> None:
        """Until everything is in the record."""
        await self._listen(lambda: self._until_end(room))

    async def finish_directories(self, directory: Path) -> None:
        """Opaque marks, and the times tar changed by putting something into a directory later; to be called when it has
        ended. Its own way to delay them (`--delay-directory-restore`) searches a list for every directory: 26 s for
        60,000 of them instead of 2."""
        await self._listen(lambda: self._finish_directories(directory))

    async def _listen(self, work: Callable[[], T]) -> T:
        listening = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.shield(listening)
        except asyncio.CancelledError:
            self._running.cancel()
            self.hang_up()
            await to_the_end(asyncio.wait({listening}))
            listening.exception()
            raise
        except (_BrokenError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self.hang_up()
            try:
                done = await self._running
            except TimeoutError as late:
                raise took_too_long() from late
            _log.error("a layer's filter failed", error=str(error), status=done.returncode, message=done.message)
            raise Internal("image: a layer could not be unpacked: the program that reads it failed") from error
        except BaseException:
            self.hang_up()
            raise

    def hang_up(self) -> None:
        """It ends then before it has unpacked much more, and whoever listens to it ends at once."""
        with suppress(OSError):  # it has hung up itself
            self._control.shutdown(socket.SHUT_RDWR)

    def _until_passed(self, room: Callable[[], None], count: Count) -> Passed:
        for kind, *words in self._said(room, count):
            if kind == "passed":
                passed = Passed(**words[0])
                count(passed.size, passed.entries)
                return passed
            raise _BrokenError(f"it said {kind!r}")
        raise _BrokenError("it passed nothing")

    def _until_end(self, room: Callable[[], None]) -> None:
        for kind, *_ in self._said(room):
            raise _BrokenError(f"it said {kind!r}")

    def _finish_directories(self, directory: Path) -> None:
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for kind, name, *times in self._said(lambda: None):
                flags = os.O_RDONLY | os.O_DIRECTORY
                path = name.encode("latin-1") or b"."
                descriptor = openat2(root, path, flags=flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
                try:
                    if kind == "opaque":
                        os.setxattr(descriptor, _OPAQUE, b"y")
                    else:
                        seconds, nanoseconds = times
                        time = seconds * 1_000_000_000 + nanoseconds
                        os.utime(descriptor, ns=(time, time))
                finally:
                    os.close(descriptor)
        finally:
            os.close(root)

    def _said(self, room: Callable[[], None], count: Count = uncounted) -> Iterator[list[Any]]:
        """Message by message until the end; what it asks and what it refuses are attended to here."""
        while True:
            match json.loads(self._line()):
                case ["room"]:
                    room()
                    self._agree()
                case ["count", int(size), int(entries)]:
                    count(size, entries)
                    self._agree()
                case ["refused", name, str(message), str(reason)]:
                    raise _REFUSALS[name](message, reason=reason)
                case ["failed", int(number), str(message)]:
                    raise OSError(number, message)
                case ["end"]:
                    return
                case [str(), *_] as said:
                    yield said
                case other:
                    raise _BrokenError(f"it said {other!r}")

    def _agree(self) -> None:
        with suppress(OSError):  # it is gone; what it said before comes first
            self._control.sendall(b"+")

    def _line(self) -> bytes:
        try:
            line = self._lines.readline(_LINE)
        except ConnectionError:  # it did not read an answer
            line = b""
        if not line.endswith(b"\n"):
            raise _BrokenError("it broke off")
        return line


@asynccontextmanager
async def filter_process(
    order: Order,
    *,
    archive: Descriptor,
    record: Descriptor,
    tar: Descriptor | None = None,
    timeout: float,  # seconds
    pool: Executor,
) -> AsyncIterator[FilterProcess]:
    """The program at work, until the end of the block; it has the descriptors then, and they are closed here. `pool` is
    where it is listened to."""
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as lines:
        given = [theirs, archive, record, *([tar] if tar else [])]
        argv = [*_PROGRAM, json.dumps(asdict(order)), *(str(each.fileno()) for each in given)]
        running = asyncio.create_task(run(argv, timeout=timeout, give=given, env=_ENVIRONMENT))
        process = FilterProcess(ours, lines, running, pool)
        try:
            yield process
        finally:
            process.hang_up()
            await to_the_end(asyncio.gather(running, return_exceptions=True))
