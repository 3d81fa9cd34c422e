"""A GET over a connection that stands. Source: RFC 9112; only the status line is understood."""

from __future__ import annotations

import asyncio
import re
import socket

from common.version import VERSION
from executor_service.health import HttpProbe

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?")


async def get_status(connection: socket.socket, probe: HttpProbe, *, limit: int) -> tuple[int, str]:
    """The status, and the status line with the beginning of the body, at most `limit` bytes of it. Closes the
    connection. Raises OSError."""
    reader, writer = await asyncio.open_connection(sock=connection, limit=64 * 1024)
    try:
        writer.write(_request(probe))
        head, _, body = (await _answer(reader, limit)).partition(b"\r\n\r\n")
        line = head.split(b"\r\n", 1)[0]
        if (match := _STATUS_LINE.fullmatch(line)) is None:
            raise OSError(f"port {probe.port} answers with {line[:64]!r}, which is not HTTP")
        return int(match[1]), b"\n".join(part for part in (line, body) if part).decode(errors="replace")
    finally:
        # Not closed but broken off: nobody waits for what a peer may never read.
        writer.transport.abort()


def _request(probe: HttpProbe) -> bytes:
    headers = {"Host": f"localhost:{probe.port}", "User-Agent": f"slipway-health/{VERSION}", "Accept": "*/*"}
    given = {name.title(): value for name, value in probe.headers.items()}
    lines = [f"{name}: {value}" for name, value in {**headers, **given, "Connection": "close"}.items()]
    return "\r\n".join((f"GET {probe.path} HTTP/1.1", *lines, "", "")).encode()


async def _answer(reader: asyncio.StreamReader, limit: int) -> bytes:
    """As much as is kept, or what came before the end."""
    answer = b""
    while len(answer) < limit and (chunk := await reader.read(limit - len(answer))):
        answer += chunk
        if b"\r\n\r\n" in answer and _is_whole(answer):
            break
    return answer


def _is_whole(answer: bytes) -> bool:
    """Whether the body has come, as far as its length was told: a server may keep the connection open."""
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *([0-9]{1,9})(?:\r\n|$)", head.lower())
    return length is not None and len(body) >= int(length[1])
