"""Netlink requests with answers of their own: dumps, and requests that are merely acknowledged. Blocks. netlink(7)"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_TIMEOUT = 10.0  # seconds
_ANSWER_SIZE = 64 * 1024


class NetlinkSocket:
    """A socket of one netlink protocol, in the calling thread's network namespace."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.settimeout(_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The bodies of the answers. Raises OSError."""
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 0, 0) + body)
        while True:
            for answer, payload in messages(self._socket.recv(_ANSWER_SIZE)):
                if answer == _DONE:
                    return
                if answer == _ERROR:
                    _check(payload)
                    return
                yield payload

    def request(self, kind: int, body: bytes) -> None:
        """Raises OSError."""
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK, 0, 0) + body)
        for answer, payload in messages(self._socket.recv(_ANSWER_SIZE)):
            if answer == _ERROR:
                _check(payload)


def attribute(kind: int, payload: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(payload)
    return _ATTRIBUTE.pack(length, kind) + payload + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(attributes))


def attributes(data: bytes) -> dict[int, bytes]:
    """Payloads by kind."""
    found = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind & ~_NESTED] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + (-length % 4)
    return found


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += length + (-length % 4)


def _check(payload: bytes) -> None:
    (code,) = struct.unpack_from("=i", payload)
    if code:
        raise OSError(-code, os.strerror(-code))
