"""This process's side of an interactive session: its terminal, and what is read from and written to it."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from slipway.v1 import container_pb2

STDIN, STDOUT, STDERR = 0, 1, 2
_CHUNK = 32 * 1024  # bytes


def is_terminal() -> bool:
    return os.isatty(STDIN)


def size() -> container_pb2.ConsoleSize:
    columns, rows = os.get_terminal_size(STDIN)
    return container_pb2.ConsoleSize(height=rows, width=columns)


@contextmanager
def raw() -> Iterator[None]:
    """Every key goes to the other side until the block ends, however it ends."""
    before = termios.tcgetattr(STDIN)
    # Not TCSAFLUSH: what was typed ahead is meant.
    tty.setraw(STDIN, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


async def typed() -> AsyncIterator[bytes]:
    """What comes on standard input, to its end."""
    while True:
        await _readable()
        try:
            data = os.read(STDIN, _CHUNK)
        except OSError:  # EIO: the terminal is gone
            return
        if not data:
            return
        yield data


async def _readable() -> None:
    """The descriptor stays blocking: it is shared with whoever started this."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(STDIN, readable.set)
    except PermissionError:  # a file, which epoll(7) does not take and which is always readable
        return
    try:
        await readable.wait()
    finally:
        loop.remove_reader(STDIN)


async def show(data: bytes, descriptor: int) -> None:
    """Raises BrokenPipeError."""
    await asyncio.to_thread(_write, data, descriptor)


def _write(data: bytes, descriptor: int) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
