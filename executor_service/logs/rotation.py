"""Rotating logs without losing a line, and keeping them under their cap.

conmon's own size limit throws the old content away. Here the file gets a second name, `log.1`, and conmon is told to
open its log again; it makes a new file and renames it over `log`. So there is a `log` at every instant, whatever dies
in between, and conmon writes each line to one of the two.

Where nobody rotated in time and conmon did throw lines away, the next rotation writes that down at their place.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from executor_service.container import LogLimits
from executor_service.logs.files import inode_of, open_all, rotated_files
from executor_service.logs.relay import told

_log = structlog.get_logger(__name__)

_REOPEN = b"2 0 0\n"
_REOPEN_TIMEOUT = 2.0  # seconds; conmon takes less than a millisecond
_REOPEN_INTERVAL = 1  # milliseconds between two looks whether it has
_IDLE_INTERVAL = 0.1  # seconds between two looks at quiet logs: a stat costs 2 µs
_BUSY_INTERVAL = 0.01


def rotate(log: Path, *, control: Path, max_files: int) -> bool:
    """Rotate once: `log` becomes `log.1`, and so on; what is beyond `max_files` (the new one included) is dropped.

    `control` is conmon's control fifo. False when no monitor listens, it is busy, or did not reopen in time: then
    nothing is lost and the next call goes on where this one ended. Blocks for a few milliseconds, at most two seconds.
    """
    before = inode_of(log)
    if before is None:
        return False
    try:
        descriptor = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # no fifo, or nobody reads it: the monitor is gone
        return False
    try:
        # Told twice, conmon would leave the file that it makes for the first message, which has no second name yet.
        if _unread(descriptor):
            return False
        if max_files > 1 and inode_of(_numbered(log, 1)) != before:
            _write_down_gap(log)
            _shift(log, max_files=max_files)
            os.link(log, _numbered(log, 1))
        # One message a write: conmon takes the first of two for both.
        os.write(descriptor, _REOPEN)
        return _wait_for_new_file(log, before, control=descriptor)
    except (BlockingIOError, BrokenPipeError):  # it is busy, or ended in this very moment
        return False
    finally:
        os.close(descriptor)


def drop_beyond(log: Path, limits: LogLimits) -> None:
    """Drop the oldest rotated files until the rest fits the cap: a flood overshoots a file's size. Blocks.

    The newest rotated file is always kept: it is what a reader is most likely to be in.
    """
    room = limits.max_size * (limits.max_files - 1)
    for number, path in rotated_files(log):
        room -= path.stat().st_size if path.exists() else 0
        if number > 1 and (room < 0 or number >= limits.max_files):
            path.unlink(missing_ok=True)


def _write_down_gap(log: Path) -> None:
    """Before `log.1` is renamed, which lets nobody see any more whether `log` goes on where it ended."""
    files = open_all(log)
    try:
        if len(files) > 1 and files[-1].gap:
            _log.warning("lines of a log are lost: it was not rotated in time", log=str(log))
            # A disk without room for it is no reason not to rotate, which makes some.
            with contextlib.suppress(OSError), _numbered(log, 1).open("ab") as before:
                before.write(told(0))
    finally:
        for file in files:
            file.close()


def _unread(control: int) -> bool:
    """Whether conmon has not read yet what it was told before."""
    (size,) = struct.unpack("i", fcntl.ioctl(control, termios.FIONREAD, bytes(4)))
    return bool(size)


def _shift(log: Path, *, max_files: int) -> None:
    for number, path in reversed(rotated_files(log)):
        if number >= max_files - 1:
            path.unlink(missing_ok=True)
        else:
            path.rename(_numbered(log, number + 1))


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def _wait_for_new_file(log: Path, before: int, *, control: int) -> bool:
    """False at once when the monitor ends, which is when the container does: all other logs wait for this one."""
    monitor = select.poll()
    monitor.register(control, 0)  # only whether somebody reads it: POLLERR comes unasked, pipe(7)
    deadline = time.monotonic() + _REOPEN_TIMEOUT
    waiting = True
    while waiting and inode_of(log) in (before, None):
        waiting = time.monotonic() < deadline and not monitor.poll(_REOPEN_INTERVAL)
    return inode_of(log) not in (before, None)


@dataclass(slots=True)
class _Watched:
    log: Path
    control: Path
    limits: LogLimits
    size: int = 0
    retry_at: float = 0.0  # monotonic seconds


@dataclass(slots=True)
class LogRotator:
    """Looks at the logs of all running containers and rotates those that have reached their size.

    Looking means one stat for each log every 100 ms, in one visit to a worker thread for all of them: 110 containers
    cost a few thousandths of one processor. While a log grows fast it is looked at every 10 ms, so a flood overshoots
    by what is written in that time; `drop_beyond` then makes room. inotify would be woken by every write instead.
    """

    _watched: dict[str, _Watched] = field(default_factory=dict)
    _added: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[LogRotator]:
        rotator = cls()
        task = asyncio.create_task(rotator._run())
        try:
            yield rotator
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def watch(self, container_id: str, *, log: Path, control: Path, limits: LogLimits) -> None:
        """Keep this log under its limits from now on. A `max_size` of 0 is no limit."""
        if limits.max_size > 0:
            self._watched[container_id] = _Watched(log=log, control=control, limits=limits)
            self._added.set()

    def forget(self, container_id: str) -> None:
        self._watched.pop(container_id, None)

    async def _run(self) -> None:
        while True:
            if not self._watched:
                self._added.clear()
                await self._added.wait()
            due = time.monotonic() + _IDLE_INTERVAL
            try:
                busy = await asyncio.to_thread(self._look, list(self._watched.items()))
            except Exception:
                _log.exception("log rotation failed; it goes on")
                busy = False
            await asyncio.sleep(_BUSY_INTERVAL if busy else max(0.0, due - time.monotonic()))

    def _look(self, watched: list[tuple[str, _Watched]]) -> bool:
        """Rotate what has to be; True when some log may reach its limit before the next idle look."""
        busy = False
        for container_id, entry in watched:
            try:
                busy |= _look_at(entry)
            except OSError as error:
                entry.retry_at = time.monotonic() + 1.0
                _log.warning("log not rotated", container=container_id, error=str(error))
        return busy


def _look_at(entry: _Watched) -> bool:
    try:
        size = entry.log.stat().st_size
    except FileNotFoundError:
        return False
    growth, entry.size = max(0, size - entry.size), size
    if size >= entry.limits.max_size and time.monotonic() >= entry.retry_at:
        if rotate(entry.log, control=entry.control, max_files=entry.limits.max_files):
            drop_beyond(entry.log, entry.limits)
            entry.size = 0
            return True
        entry.retry_at = time.monotonic() + 1.0
    return growth > 0 and size + 2 * growth >= entry.limits.max_size
