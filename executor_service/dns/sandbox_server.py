"""One sandbox's name server: its two sockets, on the event loop, with a bound on everything a container can ask for.

A turn of the loop takes at most a few datagrams of each sandbox, so that one that floods delays the others by a part
of a millisecond. Forwarded queries, connections and what is read of each are counted; what is too much is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from executor_service.dns.forwarding import forward
from executor_service.dns.names import Names
from executor_service.dns.redirect import Sockets
from executor_service.dns.upstreams import HostServers
from executor_service.dns.wire import (
    CLASS_IN,
    LARGEST_DATAGRAM,
    LARGEST_MESSAGE,
    REFUSED,
    SERVER_FAILURE,
    TYPE_A,
    TYPE_AAAA,
    Malformed,
    Query,
    is_single_label,
    parse_query,
    respond,
)

_log = structlog.get_logger(__name__)

_DATAGRAMS_A_TURN = 8
_MOST_FORWARDED = 100
_MOST_CONNECTIONS = 16
_MOST_REMEMBERED = 256  # answers; a container may write a name in upper and lower case as it likes
_IDLE = 10.0  # seconds that a connection may say nothing, or read nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolving:
    """How one sandbox resolves names. `networks`: ids of its user-defined ones, whose names it sees. `servers`: its
    own, addresses; none means the host's. `forward` false: what is not local is SERVFAIL, as on internal networks.
    `search_first`: its resolv.conf says ndots above 0 (None: the host's says), so a single label
    that nobody has gets an empty answer and the container goes on to its search domains."""

    networks: tuple[str, ...]
    servers: tuple[str, ...] = ()
    forward: bool = True
    search_first: bool | None = None


class SandboxServer:
    """Serves from `start` to `stop`; `resolving` may be replaced meanwhile. To be used on the event loop alone."""

    def __init__(self, sockets: Sockets, *, names: Names, host_servers: HostServers, resolving: Resolving) -> None:
        self.resolving = resolving
        self._sockets = sockets
        self._names = names
        self._host_servers = host_servers
        self._loop = asyncio.get_running_loop()
        self._listener: asyncio.Server | None = None
        self._forwarded: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._answers: dict[bytes, bytes] = {}  # by the query, both without their id
        self._answers_are_of: tuple[int, Resolving] = (-1, resolving)

    async def start(self) -> None:
        self._loop.add_reader(self._sockets.udp, self._read_datagrams)
        self._listener = await asyncio.start_server(
            self._connected, sock=self._sockets.tcp, limit=LARGEST_DATAGRAM, backlog=_MOST_CONNECTIONS
        )

    async def stop(self) -> None:
        """Close the sockets and drop what is under way."""
        self._loop.remove_reader(self._sockets.udp)
        self._sockets.udp.close()
        if self._listener is not None:
            self._listener.close()
        tasks = self._forwarded | self._connections
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _read_datagrams(self) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                data, client = self._sockets.udp.recvfrom(LARGEST_DATAGRAM)
            except OSError:
                return  # nothing more there
            if (answer := self._remembered(data)) is not None:
                self._send(answer, client)
                continue
            try:
                query = parse_query(data)
            except Malformed as error:
                self._send(error.answer, client)
                continue
            if (answer := self._here(query, data)) is not None:
                self._send(answer, client)
            else:
                task = self._loop.create_task(self._forward_datagram(query, data, client))
                self._forwarded.add(task)
                task.add_done_callback(self._forwarded.discard)

    def _remembered(self, data: bytes) -> bytes | None:
        """The answer to the same datagram, while no name and nothing of how names are resolved has changed."""
        if self._answers_are_of != (self._names.changes, self.resolving):
            self._answers.clear()
            return None
        answer = self._answers.get(data[2:])
        return None if answer is None else data[:2] + answer

    def _remember(self, data: bytes, answer: bytes) -> None:
        if len(self._answers) >= _MOST_REMEMBERED:
            self._answers.clear()
        self._answers_are_of = (self._names.changes, self.resolving)
        self._answers[data[2:]] = answer[2:]

    def _here(self, query: Query, data: bytes = b"", *, limit: int = 0) -> bytes | None:
        """The answer, unless another server must be asked. `data`: the datagram that the query came in."""
        resolving = self.resolving
        if query.klass == CLASS_IN:
            records = self._names.find(resolving.networks, query.name, query.type)
            if records is not None:
                # A type that the name does not have is an empty answer: another server would say there is no such name.
                answer = respond(query, records=records, limit=limit)
                if data and len(records) < 2:  # several come in another order each time
                    self._remember(data, answer)
                return answer
            if self._search_first() and query.type in {TYPE_A, TYPE_AAAA} and is_single_label(query.name):
                return respond(query)
        return None if resolving.forward else respond(query, rcode=SERVER_FAILURE)

    def _search_first(self) -> bool:
        own = self.resolving.search_first
        return self._host_servers.search_first if own is None else own

    async def _elsewhere(self, query: Query, data: bytes, *, stream: bool) -> bytes:
        if self._in_flight >= _MOST_FORWARDED:
            return respond(query, rcode=REFUSED)
        self._in_flight += 1
        try:
            servers: Sequence[str] = self.resolving.servers or await self._host_servers.current()
            return await forward(query, data, servers=servers, stream=stream)
        finally:
            self._in_flight -= 1

    async def _forward_datagram(self, query: Query, data: bytes, client: Any) -> None:
        try:
            self._send(await self._elsewhere(query, data, stream=False), client)
        except Exception:
            _log.exception("a query could not be forwarded")
            self._send(respond(query, rcode=SERVER_FAILURE), client)

    def _send(self, answer: bytes, client: Any) -> None:
        if not answer:
            return
        try:
            self._sockets.udp.sendto(answer, client)
        except OSError:
            return  # its buffer is full, or it is gone: whoever still waits asks again

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._connections) < _MOST_CONNECTIONS:
                self._connections.add(task)
                await self._converse(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # it said nothing for long, or has gone
        except asyncio.CancelledError:
            pass  # by stop, the only one that cancels: the task is the listener's, which reports it as a failure
        finally:
            self._connections.discard(task)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_IDLE):
                size = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(size)
            try:
                query = parse_query(data)
                answer = self._here(query, limit=LARGEST_MESSAGE) or await self._elsewhere(query, data, stream=True)
            except Malformed as error:
                answer = error.answer
            if not answer:
                return
            writer.write(len(answer).to_bytes(2, "big") + answer)
            async with asyncio.timeout(_IDLE):
                await writer.drain()
            await asyncio.sleep(0)  # many queries may be here already; the others' turn comes between them
