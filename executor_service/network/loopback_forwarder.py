"""Leads connections to published ports of [::1] to their containers: one socket for all of them.

The kernel translates no connection from ::1 to another host: its address cannot leave. It redirects those to published
ports to the socket here (`port_rules`), which asks what port was meant and connects anew, so that the container sees
the host as its client. Nobody else can come by that socket: what is sent to ::1 on any other interface is dropped by
the kernel. Connections end with the executor; the next one serves the same ports. Source: ip6tables' REDIRECT,
linux/netfilter_ipv6/ip6_tables.h
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import structlog

from executor_service.tasks import together

_log = structlog.get_logger(__name__)

_MAX_CONNECTIONS = 1024
_CONNECT_TIME = 10.0  # seconds
_PIECE = 64 * 1024  # bytes read at once; as much again may wait for a slow reader
_ATTEMPTS = 64  # to find a port that is nobody's
_ORIGINAL_DESTINATION = 80  # IP6T_SO_ORIGINAL_DST
_SOCKADDR_IN6 = struct.Struct("!HH4x16s4x")

Target = Callable[[int], tuple[str, int] | None]
"""The container's address and port that a port of [::1] leads to."""


class LoopbackForwarder:
    """`open` it. Belongs to one event loop. `port` is where it listens; 0: the host has no ::1."""

    def __init__(self, port: int, target: Target) -> None:
        self.port = port
        self._target = target
        self._connections: dict[asyncio.Task[None], int] = {}  # and the ports they were meant for

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target, *, taken: Collection[int] = ()) -> AsyncIterator[LoopbackForwarder]:
        """`taken`: ports that it must not listen on, for they are published."""
        listening = _listen(taken)
        if listening is None:
            yield cls(0, target)
            return
        forwarder = cls(listening.getsockname()[1], target)
        server = await asyncio.start_server(forwarder._accept, sock=listening, limit=_PIECE)
        try:
            yield forwarder
        finally:
            server.close()
            forwarder._end(list(forwarder._connections))

    def drop(self, ports: Collection[int]) -> None:
        """End the connections that were meant for these."""
        self._end([task for task, port in self._connections.items() if port in ports])

    def _end(self, connections: Collection[asyncio.Task[None]]) -> None:
        for task in connections:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = _meant(writer)
        target = self._target(port) if port != self.port else None
        if target is None or len(self._connections) >= _MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(_forward(reader, writer, target))
        self._connections[task] = port
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._connections[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection was not forwarded", exc_info=error)


def _listen(taken: Collection[int]) -> socket.socket | None:
    for _ in range(_ATTEMPTS):
        listening = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        try:
            listening.bind(("::1", 0))
        except OSError as error:
            listening.close()
            _log.info("ports are not published on [::1]", error=error.strerror)
            return None
        if listening.getsockname()[1] not in taken:
            return listening
        listening.close()
    _log.warning("ports are not published on [::1]", error="no port was free for the forwarder")
    return None


def _meant(writer: asyncio.StreamWriter) -> int:
    """The port before the redirection; 0 when it is not known."""
    accepted: socket.socket = writer.get_extra_info("socket")
    try:
        raw = accepted.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DESTINATION, _SOCKADDR_IN6.size)
    except OSError:
        return 0
    _, port, _ = _SOCKADDR_IN6.unpack(raw)
    return int(port)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: tuple[str, int]) -> None:
    writers = [writer]
    try:
        async with asyncio.timeout(_CONNECT_TIME):
            inner_reader, inner_writer = await asyncio.open_connection(*target, limit=_PIECE)
        writers.append(inner_writer)
        await together(_pump(reader, inner_writer), _pump(inner_reader, writer))
        for each in writers:
            each.close()
            await each.wait_closed()
    except OSError:
        return  # the container does not listen there, or one of the two has gone
    finally:
        for each in writers:
            each.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


NO_FORWARDER = LoopbackForwarder(0, lambda port: None)
