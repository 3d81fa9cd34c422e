"""A client at the standard streams of a container."""

from __future__ import annotations

import asyncio
from collections import deque

from common.errors import ResourceExhausted, SlipwayError
from executor_service.container import TerminalSize
from executor_service.logs.record import Stream
from executor_service.streams.client_input import InputSink
from executor_service.streams.exec_spec import StreamOutput

_MAX_WAITING = 4 * 1024 * 1024  # bytes kept for one client
_MAX_PIECE = 128 * 1024  # bytes it is given at once, about


class AttachClient:
    """What a container writes, from the moment of the attachment on."""

    def __init__(self, *, stdin: bool, stdout: bool, stderr: bool) -> None:
        self.stdin = stdin
        self._wanted = {Stream.STDOUT: stdout, Stream.STDERR: stderr}
        self._waiting: deque[StreamOutput] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._over = False
        self._error: SlipwayError | None = None
        self._ready = asyncio.Event()
        self.size: TerminalSize | None = None  # asked for at the time `resized`, before there was a terminal
        self.resized = 0.0
        self.process: InputSink | None = None

    async def read(self) -> StreamOutput | None:
        """None when the process has ended. Raises ResourceExhausted when too much was waiting, and why the process
        could not be started."""
        while True:
            if self._waiting:
                return self._take()
            if self._error is not None:
                raise self._error
            if self._over:
                return None
            self._changed.clear()
            await self._changed.wait()

    def _take(self) -> StreamOutput:
        """Small pieces together: a message costs more than its bytes do."""
        stream, pieces, size = self._waiting[0].stream, [], 0
        while self._waiting and self._waiting[0].stream is stream and size < _MAX_PIECE:
            pieces.append(self._waiting.popleft().data)
            size += len(pieces[-1])
        self._size -= size
        return StreamOutput(stream=stream, data=pieces[0] if len(pieces) == 1 else b"".join(pieces))

    async def write(self, data: bytes) -> None:
        """To the process, once it runs; dropped unless `stdin` was asked for, and when it has ended."""
        await self._ready.wait()
        if self.stdin and self.process is not None:
            await self.process.write(data)

    async def end_input(self) -> None:
        """It ends the process's input when the container is made for that (`stdin_once`)."""
        await self._ready.wait()
        if self.stdin and self.process is not None:
            await self.process.end_input()

    async def resize(self, size: TerminalSize) -> None:
        """Of the terminal, or of the one that is to come: then the last size is its first. Raises Unavailable."""
        if self.process is None:
            self.size, self.resized = size, asyncio.get_running_loop().time()
        else:
            await self.process.resize(size)

    def feed(self, output: StreamOutput) -> bool:
        """False when it is dropped now."""
        if not self._wanted[output.stream]:
            return True
        self._waiting.append(output)
        self._size += len(output.data)
        if self._size > _MAX_WAITING:
            self._waiting.clear()
            self.end(
                ResourceExhausted(
                    f"{_MAX_WAITING} bytes of output waited for this client, which reads too slowly; attach again, and "
                    "read what was missed from the logs",
                    reason="SLOW_READER",
                )
            )
            return False
        self._changed.set()
        return True

    def begin(self) -> None:
        self._ready.set()

    def end(self, error: SlipwayError | None = None) -> None:
        self._over = True
        self._ready.set()
        self._error = self._error or error
        self._changed.set()
