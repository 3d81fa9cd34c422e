"""The process between conmon and the log of a container that must never wait for its log (mode `non-blocking`).

    python -I -S relay.py CONTAINER_ID BUNDLE LOG BUFFER LIMIT  <FIFO

conmon writes its log to the FIFO, which is read at once, whatever the disk does. What the disk has not taken yet waits
in memory, at most BUFFER bytes; then the oldest is dropped, and a line of the log says how many were (`logs.record`).
LOG is replaced by a new file when a byte comes from the bundle's `relay.ctl`, and when it has LIMIT bytes (0: never).

It is a program of its own, of the standard library alone, because it has to outlive the executor and be small. The
first process ends when the second one listens and its id is in the bundle's `relay.pid`. It ends with the last writer.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections import deque

_PIECE = 64 * 1024  # bytes; a pipe's
_BATCH = 256 * 1024  # bytes of one write
_INPUT = 0


def _ended(lines: bytes) -> int:
    """How many lines of output end in these lines of the log."""
    return sum(line.split(b" ", 3)[2:3] == [b"F"] for line in lines.split(b"\n"))


class Waiting:
    """Whole lines on their way to the disk."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._dropped = 0  # lines
        self._reopen = self._ended = False
        self._changed = threading.Condition()

    def put(self, lines: bytes) -> None:
        """`lines` end with a newline. Never waits for the disk; drops the oldest lines beyond the limit, but never the
        newest one."""
        with self._changed:
            self._pieces.append(lines)
            self._size += len(lines)
            while self._size > self._limit and self._drop():
                pass
            self._changed.notify()

    def ask_reopen(self) -> None:
        with self._changed:
            self._reopen = True
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self) -> tuple[bool, int, bytes]:
        """Whether to begin a new file, how many lines were dropped before these, and the lines: none at the end."""
        with self._changed:
            while not (self._pieces or self._reopen or self._ended):
                self._changed.wait()
            reopen, dropped = self._reopen, self._dropped
            self._reopen, self._dropped = False, 0
            taken: list[bytes] = []
            size = 0
            while self._pieces and size < _BATCH:
                taken.append(self._pieces.popleft())
                size += len(taken[-1])
            self._size -= size
            return reopen, dropped, b"".join(taken)

    @property
    def over(self) -> bool:
        with self._changed:
            return self._ended and not (self._pieces or self._reopen)

    def _drop(self) -> bool:
        """False when only one line is left."""
        oldest = self._pieces.popleft()
        end = _cut(oldest, min(self._size - self._limit, len(oldest)))
        if not self._pieces and end == len(oldest):
            end = oldest.rfind(b"\n", 0, end - 1) + 1
        if end < len(oldest):
            self._pieces.appendleft(oldest[end:])
        self._dropped += _ended(oldest[:end])
        self._size -= end
        return end > 0


def _cut(lines: bytes, excess: int) -> int:
    """Where to cut them so that at least `excess` bytes go, and where that is possible not within a line of output: its
    rest would look like a whole one."""
    cut = end = lines.find(b"\n", excess - 1) + 1
    while not _ended(lines[lines.rfind(b"\n", 0, end - 1) + 1 : end]):
        if end == len(lines):
            return cut
        end = lines.find(b"\n", end) + 1
    return end


class Log:
    """The file. No method raises: what cannot be written is dropped and counted."""

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._descriptor = -1
        self._size = 0
        self._lost = 0  # lines that could not be written, not yet told
        self._torn = False  # the file ends within a line

    def open(self) -> None:
        self._use(self._path, 0)

    def reopen(self) -> None:
        """Go on in a new file, which takes the name of the old one."""
        fresh = self._path + ".tmp"
        if self._use(fresh, os.O_TRUNC):
            with contextlib.suppress(OSError):
                os.rename(fresh, self._path)  # noqa: PTH104 - pathlib takes as much memory as all the rest

    def write(self, lines: bytes, dropped: int) -> None:
        content = lines
        if dropped + self._lost:
            content = told(dropped + self._lost) + content
        if self._torn:
            content = b"\n" + content
        written = 0
        try:
            while written < len(content):
                written += os.write(self._descriptor, content[written:])
        except OSError:
            self._lost += dropped + _ended(lines)
            self._torn = self._torn or content[:written][-1:] not in (b"", b"\n")
        else:
            self._lost, self._torn = 0, False
        self._size += written
        if self._limit and self._size >= self._limit:
            self.reopen()

    def _use(self, path: str, flags: int) -> bool:
        try:
            descriptor = os.open(
                path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600
            )
            self._size = os.fstat(descriptor).st_size
        except OSError:
            return False
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._torn = descriptor, False
        return True


def told(dropped: int) -> bytes:
    """The line of the log for so many that are missing."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{moment}.{nanoseconds:09d}+00:00 dropped F {dropped}\n".encode()


def read(waiting: Waiting, control: int) -> None:
    """Until the last writer is gone; one has not come yet is waited for, as poll(2) has it."""
    poll = select.poll()
    poll.register(_INPUT, select.POLLIN)
    poll.register(control, select.POLLIN)
    rest = b""
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if control in ready and os.read(control, _PIECE):
            waiting.ask_reopen()
        if _INPUT not in ready:
            continue
        piece = os.read(_INPUT, _PIECE)
        content = rest + (piece or (b"\n" if rest else b""))
        end = content.rfind(b"\n") + 1
        rest = content[end:]
        if end:
            waiting.put(content[:end])
        if not piece:
            waiting.end()
            return


def write(waiting: Waiting, log: Log) -> None:
    log.open()
    while not waiting.over:
        reopen, dropped, lines = waiting.take()
        if lines or dropped:
            log.write(lines, dropped)
        if reopen:
            log.reopen()


def main(bundle: str, path: str, buffer: int, limit: int) -> None:
    os.mkfifo(f"{bundle}/relay.ctl", 0o600)
    # Its own reader and writer, so that it is never at an end.
    control = os.open(f"{bundle}/relay.ctl", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    if (pid := os.fork()) != 0:
        descriptor = os.open(f"{bundle}/relay.pid", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.write(descriptor, str(pid).encode())
        os._exit(0)
    waiting = Waiting(buffer)
    threading.Thread(target=read, args=(waiting, control), daemon=True).start()
    write(waiting, Log(path, limit))


if __name__ == "__main__":
    main(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
