"""Asking other name servers, from the host's network namespace.

Every query goes out from a socket of its own, on a port the kernel chose at random, under a random id, and only an
answer from that server, to that id and that question is taken: RFC 5452.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from executor_service.dns.wire import (
    LARGEST_MESSAGE,
    REFUSED,
    SERVER_FAILURE,
    Query,
    answers_query,
    is_truncated,
    rcode_of,
    respond,
    with_id,
)

_PORT = 53
_OVERALL = 4.0  # seconds, Docker's: a stub resolver gives up after 5
_ROUNDS = 2
_NOT_THEIRS = frozenset({SERVER_FAILURE, REFUSED})  # says nothing of the name: another server may know


async def forward(query: Query, data: bytes, *, servers: Sequence[str], stream: bool, port: int = _PORT) -> bytes:
    """The first good answer to `data`, which is `query` as it came. Servers are asked one after the other, twice at
    most; one that was asked may still answer while the next one thinks. SERVFAIL when none knows within 4 s.

    With `stream` an answer that was cut short is fetched whole."""
    asked = [server for _ in range(_ROUNDS) for server in dict.fromkeys(servers)]
    everyone: list[asyncio.Task[bytes]] = []
    pending: set[asyncio.Task[bytes]] = set()
    try:
        async with asyncio.timeout(_OVERALL):
            for server in asked:
                everyone.append(asyncio.create_task(_exchange(query, data, server, port, stream=stream)))
                pending.add(everyone[-1])
                if (answer := await _first_good(pending, patience=_OVERALL / len(asked))) is not None:
                    return with_id(answer, query.id)
    except TimeoutError:
        pass
    finally:
        for task in everyone:
            task.cancel()
        await asyncio.gather(*everyone, return_exceptions=True)
    return respond(query, rcode=SERVER_FAILURE)


async def _first_good(pending: set[asyncio.Task[bytes]], *, patience: float) -> bytes | None:
    """Wait `patience` seconds for a good answer; not when every one asked has failed. Ended tasks leave `pending`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while pending:
        left = max(until - loop.time(), 0)
        done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return None
        pending -= done
        for task in done:
            if task.exception() is None and rcode_of(task.result()) not in _NOT_THEIRS:
                return task.result()
    return None


async def _exchange(query: Query, data: bytes, server: str, port: int, *, stream: bool) -> bytes:
    """Ask one server. Raises OSError."""
    number = secrets.randbelow(1 << 16)
    message = with_id(data, number)
    answer = await _by_datagram(query, message, server, port, number)
    if stream and is_truncated(answer):
        return await _by_stream(query, message, server, port, number)
    return answer


async def _by_datagram(query: Query, message: bytes, server: str, port: int, number: int) -> bytes:
    loop = asyncio.get_running_loop()
    family, address = _socket_address(server, port, socket.SOCK_DGRAM)
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        # Connected: the kernel gives us what this server sends, and an error when nothing listens there.
        sock.connect(address)
        await loop.sock_sendall(sock, message)
        while True:
            answer = await loop.sock_recv(sock, LARGEST_MESSAGE)
            if answers_query(answer, number=number, question=query.question):
                return answer


async def _by_stream(query: Query, message: bytes, server: str, port: int, number: int) -> bytes:
    loop = asyncio.get_running_loop()
    family, address = _socket_address(server, port, socket.SOCK_STREAM)
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        await loop.sock_connect(sock, address)
        await loop.sock_sendall(sock, len(message).to_bytes(2, "big") + message)
        size = int.from_bytes(await _exactly(loop, sock, 2), "big")
        answer = await _exactly(loop, sock, size)
    if not answers_query(answer, number=number, question=query.question):
        raise ConnectionError(f"{server} answers another question than the one it was asked")
    return answer


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (part := await loop.sock_recv(sock, size - len(data))):
            raise ConnectionError("the connection ended in the middle of an answer")
        data += part
    return data


def _socket_address(server: str, port: int, kind: socket.SocketKind) -> tuple[int, Any]:
    """Of a numeric address, which may have a zone: nothing is looked up."""
    family, _, _, _, address = socket.getaddrinfo(server, port, type=kind, flags=socket.AI_NUMERICHOST)[0]
    return family, address
