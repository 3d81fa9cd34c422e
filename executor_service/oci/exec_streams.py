"""The streams of an exec: pipes or the master of a terminal, read and written without blocking the event loop.

Nothing is read ahead: what the program writes stays in the kernel's pipe (64 KiB, pipe(7)) until somebody takes it, so
a slow reader slows the program down, and no amount of output costs memory here.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from dataclasses import dataclass, field

from common.errors import Internal
from executor_service.container import TerminalSize
from executor_service.logs.record import Stream

CHUNK = 32 * 1024  # bytes of one read
_TERMINAL_BUFFER = 64 * 1024  # bytes; the kernel keeps no more for a terminal's reader
_HANG_UP = 0.1  # seconds
_END_OF_FILE = b"\x04"  # the terminal's VEOF character, termios(3)


@dataclass(slots=True, kw_only=True)
class OutputReader:
    """`descriptors` are non-blocking and belong to whoever made this; `terminal`: the one is a terminal's master."""

    descriptors: dict[int, Stream]
    terminal: bool = False
    _ended: bool = False
    _left: dict[int, int] = field(default_factory=dict)
    _waiting: asyncio.Future[None] | None = None

    async def read(self) -> tuple[Stream, bytes] | None:
        """What was written, at most `CHUNK` bytes of one stream; None at the end. One reader at a time."""
        while self.descriptors:
            for descriptor, stream in list(self.descriptors.items()):
                if (data := self._read_now(descriptor)) is None:
                    continue
                if data:
                    # The other stream comes first next time.
                    self.descriptors[descriptor] = self.descriptors.pop(descriptor)
                    return stream, data
                del self.descriptors[descriptor]
            if self.descriptors and not await self._readable():
                return None
        return None

    def end(self) -> None:
        """The program has ended: what it has written is all there will be, though its children may hold the pipe."""
        for descriptor in self.descriptors:
            self._left[descriptor] = _TERMINAL_BUFFER if self.terminal else _unread(descriptor)
        self._ended = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _read_now(self, descriptor: int) -> bytes | None:
        """None: nothing yet. Empty: no more."""
        limit = min(CHUNK, self._left.get(descriptor, CHUNK)) if self._ended else CHUNK
        if limit <= 0:
            return b""
        try:
            data = os.read(descriptor, limit)
        except BlockingIOError:
            return b"" if self._ended and not self.terminal else None
        except OSError:  # EIO: nobody has the terminal open any more
            return b""
        if self._ended:
            self._left[descriptor] -= len(data)
        return data

    async def _readable(self) -> bool:
        """False when a terminal whose program has ended stays silent: its hang-up comes after its last output."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()

        def wake() -> None:
            if not waiting.done():
                waiting.set_result(None)

        watched = list(self.descriptors)
        try:
            for descriptor in watched:
                loop.add_reader(descriptor, wake)
            done, _ = await asyncio.wait({waiting}, timeout=_HANG_UP if self._ended else None)
            return bool(done)
        finally:
            self._waiting = None
            for descriptor in watched:
                loop.remove_reader(descriptor)


@dataclass(slots=True, kw_only=True)
class InputWriter:
    """`descriptor` is non-blocking; a pipe's is closed by `close`, a terminal's stays."""

    descriptor: int
    terminal: bool
    _last: bytes = b"\n"
    _closed: bool = False
    _waiting: asyncio.Event | None = None

    async def write(self, data: bytes) -> None:
        """Return when the kernel has taken it; what nobody will read any more is dropped."""
        loop = asyncio.get_running_loop()
        rest = memoryview(data)
        while rest and not self._closed:
            try:
                rest = rest[os.write(self.descriptor, rest) :]
            except BlockingIOError:
                writable = self._waiting = asyncio.Event()
                loop.add_writer(self.descriptor, writable.set)
                try:
                    await writable.wait()
                finally:
                    self._waiting = None
                    if not self._closed:
                        loop.remove_writer(self.descriptor)
            except OSError:  # EPIPE, EIO: the program has closed it, or has ended
                return
        self._last = data[-1:] or self._last

    async def end(self) -> None:
        """The program reads an end of file."""
        if self._closed:
            return
        if self.terminal:
            # The first of two only hands on a line that was begun.
            await self.write(_END_OF_FILE if self._last in b"\r\n" else _END_OF_FILE * 2)
        else:
            self.close()

    def close(self) -> None:
        """Idempotent. Whoever waits in `write` returns."""
        if not self._closed:
            self._closed = True
            if self._waiting is not None:
                # Before the number is given to somebody else.
                asyncio.get_running_loop().remove_writer(self.descriptor)
                self._waiting.set()
            if not self.terminal:
                os.close(self.descriptor)


def resize(terminal: int, size: TerminalSize) -> None:
    """Raises OSError."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size.height, size.width, 0, 0))


async def receive_terminal(listener: socket.socket) -> int:
    """The terminal's master, which the runtime sends over its console socket (runc's docs/terminals.md)."""
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(listener)
    with connection:
        readable = asyncio.Event()
        loop.add_reader(connection, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(connection)
        numbers = array.array("i")
        _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(numbers.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    if len(numbers) != 1:
        for number in numbers:
            with contextlib.suppress(OSError):
                os.close(number)
        raise Internal("the runtime sent no terminal over its console socket")
    os.set_blocking(numbers[0], False)
    return numbers[0]


def _unread(descriptor: int) -> int:
    waiting = array.array("i", [0])
    try:
        fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
    except OSError:
        return 0
    return waiting[0]
