"""The attach socket of a container's monitor (conmon(8)), and the clients that share it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.errors import SlipwayError
from executor_service.container import ContainerSpec, TerminalSize
from executor_service.logs.record import Stream
from executor_service.oci.terminal_control import set_terminal_size
from executor_service.streams.attach_client import AttachClient
from executor_service.streams.exec_spec import StreamOutput

_FRAME = 8192 + 1  # bytes: a message of conmon's is its stream's number and what was written
_FRAMES_AT_ONCE = 64  # read in one turn of the event loop
_MAX_MESSAGE = 8192  # bytes; conmon cuts silently what is longer than 32 KiB
_END_OF_FILE = b"\x04"  # the terminal's VEOF character, termios(3)


@dataclass(slots=True)
class _Input:
    """`ended`: no more will come."""

    once: bool
    ended: bool = False


class MonitorConnection:
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

    def take(self, client: AttachClient) -> None:
        """It gets what is written from now on; what it has typed waits for its `begin`."""
        client.process = self
        self.clients.add(client)

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
            except ConnectionResetError:
                continue  # it ended without reading all that was typed; told once, before what it had written
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
