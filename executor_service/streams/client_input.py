"""What a client sends, on its way to a process: sizes and the wish to leave overtake the bytes nobody has read yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Protocol

import structlog

from common.errors import FailedPrecondition, Unavailable
from executor_service.container import TerminalSize
from executor_service.streams.exec_spec import StreamInput

_log = structlog.get_logger(__name__)

_MAX_WAITING = 256 * 1024  # bytes kept for a process that does not read, and one message more
_MESSAGE = 256  # bytes that one takes besides its own
_LEAVE = 1.0  # seconds for what was typed before the client leaves


class InputSink(Protocol):
    """Where it goes."""

    async def write(self, data: bytes) -> None:
        """Return when it is taken, or can be taken no more."""

    async def end_input(self) -> None: ...

    async def resize(self, size: TerminalSize) -> None:
        """Raises FailedPrecondition without a terminal, Unavailable."""


async def feed(inputs: AsyncIterator[StreamInput], sink: InputSink) -> bool:
    """Until the client sends no more, which ends nothing, or leaves: then True. Raises what its messages raise."""
    waiting = _Waiting()
    writing = asyncio.create_task(_write(waiting, sink))
    try:
        async for message in inputs:
            if message.resize is not None:
                await _resize(sink, message.resize)
            if message.detach:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LEAVE):
                        await waiting.drained()
                return True
            if message.data or message.end:
                await waiting.put(message)
        await waiting.drained()
        return False
    finally:
        writing.cancel()
        await asyncio.wait({writing})


async def _resize(sink: InputSink, size: TerminalSize) -> None:
    try:
        await sink.resize(size)
    except FailedPrecondition:
        return  # it has no terminal, or has ended
    except Unavailable as error:
        _log.warning("a terminal was not resized", error=error.message)


async def _write(waiting: _Waiting, sink: InputSink) -> None:
    try:
        while True:
            message = await waiting.next()
            if message.data:
                await sink.write(message.data)
            if message.end:
                await sink.end_input()
            waiting.done()
    finally:
        waiting.close()


class _Waiting:
    """Messages between one reader and one writer. Closed, it takes and keeps none."""

    def __init__(self) -> None:
        self._messages: deque[StreamInput] = deque()
        self._size = 0
        self._open = True
        self._changed = asyncio.Event()

    async def put(self, message: StreamInput) -> None:
        while self._open and self._size >= _MAX_WAITING:
            await self._change()
        if self._open:
            self._messages.append(message)
            self._size += _size(message)
            self._changed.set()

    async def next(self) -> StreamInput:
        """It stays until `done`."""
        while not self._messages:
            await self._change()
        return self._messages[0]

    def done(self) -> None:
        self._size -= _size(self._messages.popleft())
        self._changed.set()

    async def drained(self) -> None:
        while self._open and self._messages:
            await self._change()

    def close(self) -> None:
        self._open = False
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _size(message: StreamInput) -> int:
    return _MESSAGE + len(message.data)
