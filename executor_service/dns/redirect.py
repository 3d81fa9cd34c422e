"""What makes a sandbox's 127.0.0.11 port 53 ours: two sockets on ports the kernel chose, and rules that lead there.

Port 53 itself is not bound, so that a server of the container's own on 0.0.0.0:53 is not disturbed. The rules rewrite
the port of each packet where it comes in and of each answer where it leaves; unlike NAT this needs no connection
tracking, which would slow all the container's traffic and drop packets once its table is full of queries.

Encoded by hand, because it is on the path of a start: libnftables takes 1.5 ms for it, this 0.7. A libnftables context
cannot be kept either: it takes the rules of the namespace where it was last used for those of the present one.
Sources: linux/netfilter/nf_tables.h, nfnetlink.h, `nft --debug=netlink`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from executor_service.network import syscalls

ADDRESS = "127.0.0.11"  # Docker's
_PORT = 53
_TABLE, _INPUT, _OUTPUT = b"slipway_dns", b"input", b"output"

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_REQUEST, _ACK, _EXCLUSIVE, _CREATE, _APPEND = 0x1, 0x4, 0x200, 0x400, 0x800
_NLMSG_ERROR = 2
_NESTED = 0x8000
_HOOK_INPUT, _HOOK_OUTPUT = 1, 3
_PRIORITY_RAW = -300  # before connection tracking on the way out: if the container has any, it sees port 53 alone
_ACCEPT = 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_REGISTER = 1
_META_PROTOCOL = 16
_INTERNET_CHECKSUM = 1
_SOURCE_ADDRESS, _DESTINATION_ADDRESS = 12, 16  # offsets in the IPv4 header
_SOURCE_PORT, _DESTINATION_PORT = 0, 2
_CHECKSUMS = {socket.IPPROTO_UDP: 6, socket.IPPROTO_TCP: 16}  # offsets
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TIMEOUT = 10.0  # seconds; the kernel has queued every answer before send returns
_ANSWER_SIZE = 32 * 1024
_BACKLOG = 16
_SO_RCVBUFFORCE = 33
# Bytes; the kernel doubles it and counts 768 for a query: 1,300 wait while the machine has no time for us, not 270.
_RECEIVE_BUFFER = 512 * 1024


class Sockets(NamedTuple):
    """Both bound, the second one listening; not blocking."""

    udp: socket.socket
    tcp: socket.socket


def open_sockets(namespace: str) -> Sockets:
    """Open the sockets inside the network namespace at this path, and lead its 127.0.0.11 port 53 to them, whatever it
    led to before. Blocks. Raises OSError.

    The calling thread is left inside: give it a thread of its own that ends afterwards."""
    with ExitStack() as undo:
        descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.enter_network(descriptor)
        finally:
            os.close(descriptor)
        udp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        tcp = undo.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
        udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        for sock in (udp, tcp):
            sock.bind((ADDRESS, 0))
        tcp.listen(_BACKLOG)
        _install(udp.getsockname()[1], tcp.getsockname()[1])
        undo.pop_all()
        return Sockets(udp, tcp)


def _install(udp_port: int, tcp_port: int) -> None:
    ports = {socket.IPPROTO_UDP: udp_port, socket.IPPROTO_TCP: tcp_port}
    content = [
        _chain(_INPUT, _HOOK_INPUT),
        _chain(_OUTPUT, _HOOK_OUTPUT),
        *(_rule(_INPUT, _DESTINATION_ADDRESS, _DESTINATION_PORT, p, _PORT, port) for p, port in ports.items()),
        *(_rule(_OUTPUT, _SOURCE_ADDRESS, _SOURCE_PORT, p, port, _PORT) for p, port in ports.items()),
    ]
    table = _attribute(1, _TABLE + b"\0")
    new = _message(_NEW_TABLE, _CREATE | _EXCLUSIVE, table)
    try:
        _send([new, *content])
    except FileExistsError:
        # An executor that is gone made it. Not always so, because after a deletion the kernel makes us wait for 7 ms.
        _send([_message(_DELETE_TABLE, 0, table), new, *content])


def _chain(name: bytes, hook: int) -> bytes:
    return _message(
        _NEW_CHAIN,
        _CREATE,
        _attribute(1, _TABLE + b"\0")
        + _attribute(3, name + b"\0")
        + _nested(4, _number(1, hook) + _number(2, _PRIORITY_RAW & 0xFFFFFFFF))
        + _number(5, _ACCEPT)
        + _attribute(7, b"filter\0"),
    )


def _rule(chain: bytes, address: int, port: int, protocol: int, old: int, new: int) -> bytes:
    """Where our address stands at that offset of the header, and the old port at the other, put the new port."""
    expressions = (
        _load(_NETWORK_HEADER, address, 4),
        _equals(socket.inet_aton(ADDRESS)),
        _expression(b"meta", _number(1, _REGISTER) + _number(2, _META_PROTOCOL)),
        _equals(bytes((protocol,))),
        _load(_TRANSPORT_HEADER, port, 2),
        _equals(old.to_bytes(2, "big")),
        _expression(b"immediate", _number(1, _REGISTER) + _nested(2, _attribute(1, new.to_bytes(2, "big")))),
        _store_port(port, _CHECKSUMS[protocol]),
    )
    return _message(
        _NEW_RULE,
        _CREATE | _APPEND,
        _attribute(1, _TABLE + b"\0") + _attribute(2, chain + b"\0") + _nested(4, b"".join(expressions)),
    )


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression(b"payload", _number(1, _REGISTER) + _number(2, base) + _number(3, offset) + _number(4, length))


def _store_port(offset: int, checksum: int) -> bytes:
    return _expression(
        b"payload",
        _number(5, _REGISTER)
        + _number(2, _TRANSPORT_HEADER)
        + _number(3, offset)
        + _number(4, 2)
        + _number(6, _INTERNET_CHECKSUM)
        + _number(7, checksum)
        + _number(8, 0),
    )


def _equals(value: bytes) -> bytes:
    return _expression(b"cmp", _number(1, _REGISTER) + _number(2, 0) + _nested(3, _attribute(1, value)))


def _expression(name: bytes, data: bytes) -> bytes:
    return _nested(1, _attribute(1, name + b"\0") + _nested(2, data))


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big"))


def _nested(kind: int, payload: bytes) -> bytes:
    return _attribute(kind | _NESTED, payload)


def _attribute(kind: int, payload: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _message(kind: int, flags: int, attributes: bytes) -> bytes:
    body = struct.pack("=BBH", socket.AF_INET, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), _SUBSYSTEM << 8 | kind, _REQUEST | _ACK | flags, 0, 0) + body


def _send(messages: Sequence[bytes]) -> None:
    """Carry all of them out or none, in the calling thread's network namespace. Raises OSError."""
    edge = struct.pack("!BBH", socket.AF_UNSPEC, 0, _SUBSYSTEM)
    size = _HEADER.size + len(edge)
    begin, end = (_HEADER.pack(size, kind, _REQUEST, 0, 0) + edge for kind in (_BATCH_BEGIN, _BATCH_END))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as kernel:
        kernel.settimeout(_TIMEOUT)
        kernel.send(b"".join((begin, *messages, end)))
        answered = 0
        while answered < len(messages):
            codes = _codes(kernel.recv(_ANSWER_SIZE))
            answered += len(codes)
            if failed := [code for code in codes if code]:
                raise OSError(failed[0], f"nftables refuses the redirect of {ADDRESS}: {os.strerror(failed[0])}")


def _codes(data: bytes) -> list[int]:
    """The errno or 0 of every acknowledgement in a datagram."""
    codes = []
    offset = 0
    while offset + _HEADER.size + 4 <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if kind == _NLMSG_ERROR:
            codes.append(-struct.unpack_from("=i", data, offset + _HEADER.size)[0])
        offset += length + (-length % 4)
    if not codes:
        raise OSError(errno.EPROTO, "nfnetlink answered with something that is no acknowledgement")
    return codes
