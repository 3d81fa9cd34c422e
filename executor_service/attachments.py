"""Clients at the standard streams of containers: one connection to each monitor, and everybody at that.

A monitor stops its container while a client of its does not read, and, for a container whose input ends with its first
client, takes any connection's end for that. So there is one connection, it is always read at once, and whoever does
not take his share in time is dropped. The connection is made when there is a client, before the process begins if the
client was there before the start.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from common.errors import ResourceExhausted, SlipwayError, Unavailable
from executor_service.container import ContainerSpec, TerminalSize
from executor_service.exec_spec import StreamOutput
from executor_service.logs.record import Stream
from executor_service.oci.terminal_control import set_terminal_size

_log = structlog.get_logger(__name__)

_MAX_WAITING = 4 * 1024 * 1024  # bytes kept for one client
_MAX_PIECE = 128 * 1024  # bytes it is given at once, about
_MAX_CLIENTS = 64  # of one container
_FRAME = 8192 + 1  # bytes: a message of conmon's is its stream's number and what was written
_FRAMES_AT_ONCE = 64  # read in one turn of the event loop
_MAX_MESSAGE = 8192  # bytes; conmon cuts silently what is longer than 32 KiB
_END_OF_FILE = b"\x04"  # the terminal's VEOF character, termios(3)


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
        self.hub: _Hub | None = None

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
        if self.stdin and self.hub is not None:
            await self.hub.write(data)

    async def end_input(self) -> None:
        """It ends the process's input when the container is made for that (`stdin_once`)."""
        await self._ready.wait()
        if self.stdin and self.hub is not None:
            await self.hub.end_input()

    async def resize(self, size: TerminalSize) -> None:
        """Of the terminal, or of the one that is to come: then the last size is its first. Raises Unavailable."""
        if self.hub is None:
            self.size, self.resized = size, asyncio.get_running_loop().time()
        else:
            await self.hub.resize(size)

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

    def join(self, hub: _Hub) -> None:
        """It gets what is written from now on; what it has typed waits for `begin`."""
        self.hub = hub
        hub.clients.add(self)

    def begin(self) -> None:
        self._ready.set()

    def end(self, error: SlipwayError | None = None) -> None:
        self._over = True
        self._ready.set()
        self._error = self._error or error
        self._changed.set()


class Attachments:
    """All clients of the node. Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[AttachClient]] = {}
        self._hubs: dict[str, _Hub] = {}

    @asynccontextmanager
    async def attached(
        self, spec: ContainerSpec, bundle: Path | None, *, stdin: bool, stdout: bool, stderr: bool
    ) -> AsyncIterator[AttachClient]:
        """A client, until the block ends. `bundle`: of the process that runs; None: the next start is waited for.
        Raises ResourceExhausted."""
        client = AttachClient(stdin=stdin, stdout=stdout, stderr=stderr)
        hub = self._hubs.get(spec.id)
        count = len(self._waiting.get(spec.id, ())) + (len(hub.clients) if hub is not None else 0)
        if count >= _MAX_CLIENTS:
            raise ResourceExhausted(
                f"container {spec.id!r}: {count} clients are attached, no more are possible; end one",
                reason="TOO_MANY_CLIENTS",
            )
        self._waiting.setdefault(spec.id, set()).add(client)
        try:
            if bundle is not None:
                await self.connect(spec, bundle)
            yield client
        finally:
            self._remove(spec.id, client)

    def awaited(self, container_id: str) -> bool:
        """Somebody waits for the container's start."""
        return container_id in self._waiting

    async def connect(self, spec: ContainerSpec, bundle: Path) -> None:
        """Connect everybody who waits to the process of this bundle, and give its terminal the size they asked for
        last. Never fails: where no monitor listens the process has ended, and so does the attachment."""
        waiting = self._waiting.pop(spec.id, set())
        if not waiting:
            return
        hub = self._hubs.get(spec.id)
        try:
            if hub is None:
                hub = self._hubs[spec.id] = _Hub(spec, bundle, on_end=lambda: self._hubs.pop(spec.id, None))
        except OSError as error:
            gone = error.errno in (errno.ENOENT, errno.ECONNREFUSED)
            if not gone:
                _log.error("the monitor cannot be attached to", container=spec.id, error=str(error))
            for client in waiting:
                client.end(None if gone else Unavailable(f"container {spec.id!r}: {error.strerror}"))
            return
        for client in waiting:
            client.join(hub)
        try:
            asked = [client for client in waiting if client.size is not None]
            if asked and (size := max(asked, key=lambda client: client.resized).size) is not None:
                await hub.resize(size)
        except Unavailable as error:
            _log.warning("the terminal has not its size", container=spec.id, error=error.message)
        finally:
            for client in waiting:
                client.begin()

    def give_up(self, container_id: str, error: SlipwayError | None) -> None:
        """What was waited for will not come: the start failed, or the container was removed."""
        for client in self._waiting.pop(container_id, set()):
            client.end(error)

    def close(self) -> None:
        """The executor ends: nobody is attached any more."""
        stopping = Unavailable("the executor is stopping; attach again in a moment", retry_after=1.0)
        for container_id in list(self._waiting):
            self.give_up(container_id, stopping)
        for hub in list(self._hubs.values()):
            hub.end(stopping)

    def _remove(self, container_id: str, client: AttachClient) -> None:
        waiting = self._waiting.get(container_id, set())
        waiting.discard(client)
        if not waiting:
            self._waiting.pop(container_id, None)
        if client.hub is not None:
            client.hub.leave(client)


@dataclass(slots=True)
class _Input:
    """`ended`: no more will come."""

    once: bool
    ended: bool = False


class _Hub:
    """The connection to one monitor (SOCK_SEQPACKET, conmon(8)), and its clients. Raises OSError when it cannot be
    made."""

    def __init__(self, spec: ContainerSpec, bundle: Path, *, on_end: Callable[[], object]) -> None:
        self.clients: set[AttachClient] = set()
        self._terminal = spec.terminal
        self._bundle = bundle
        self._input = _Input(once=spec.stdin_once and spec.open_stdin)
        self._writing = asyncio.Lock()
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._socket = _connect(bundle)
        self._loop.add_reader(self._socket, self._receive)
        self._open = True

    async def write(self, data: bytes) -> None:
        async with self._writing:
            for at in range(0, len(data), _MAX_MESSAGE):
                await self._send(data[at : at + _MAX_MESSAGE])

    async def end_input(self) -> None:
        if not self._input.once or self._input.ended:
            return
        self._input.ended = True
        if self._terminal:
            await self.write(_END_OF_FILE)
            return
        async with self._writing:
            self._shut()

    async def resize(self, size: TerminalSize) -> None:
        """Raises Unavailable."""
        if self._terminal and self._open:
            await set_terminal_size(self._bundle, size)

    def leave(self, client: AttachClient) -> None:
        """A client that had the container's input ends it by going away, where the first one does."""
        self.clients.discard(client)
        if client.stdin and self._input.once and not self._input.ended and not self._terminal:
            self._input.ended = True
            self._shut()
        if not self.clients and (self._input.ended or not self._input.once):
            self.end()

    def end(self, error: SlipwayError | None = None) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for client in self.clients:
            client.end(error)
        self.clients = set()
        self._on_end()

    def _shut(self) -> None:
        if self._open:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                return  # the monitor has ended

    async def _send(self, message: bytes) -> None:
        while self._open and not (self._input.ended and not self._terminal):
            try:
                self._socket.send(message)
            except BlockingIOError:
                writable = asyncio.Event()
                self._loop.add_writer(self._socket, writable.set)
                try:
                    await writable.wait()
                finally:
                    if self._open:
                        self._loop.remove_writer(self._socket)
            except OSError:  # the monitor has ended
                return
            else:
                return

    def _receive(self) -> None:
        for _ in range(_FRAMES_AT_ONCE):
            try:
                frame = self._socket.recv(_FRAME)
            except BlockingIOError:
                return
            except OSError:
                frame = b""
            if not frame:
                self.end()
                return
            self._deal(frame)
            if not self._open:
                return

    def _deal(self, frame: bytes) -> None:
        # conmon(8): 2 is standard output, 3 standard error.
        output = StreamOutput(stream=Stream.STDERR if frame[0] == 3 else Stream.STDOUT, data=frame[1:])
        slow = [client for client in self.clients if not client.feed(output)]
        for client in slow:
            self.leave(client)


def _connect(bundle: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.setblocking(False)
        # Through a descriptor, because a socket's path may have 107 bytes and no more.
        place = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{place}/attach")
        finally:
            os.close(place)
    except BaseException:
        connection.close()
        raise
    return connection
