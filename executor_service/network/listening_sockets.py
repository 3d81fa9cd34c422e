"""Sockets of the host that listen, and whose they are: sock_diag(7), linux/inet_diag.h. Blocks."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from executor_service.network.netlink import NetlinkSocket, attributes
from executor_service.network.port_allocation import ListeningSocket
from executor_service.ports import PortProtocol

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST = struct.Struct("=BBBxI48x")
_ANSWER = struct.Struct("=BBBB2s2s16s16s12xIIIII")
_V6ONLY = 11  # INET_DIAG_SKV6ONLY
_LISTEN, _UNCONNECTED = 1 << 10, 1 << 7  # TCP_LISTEN, TCP_CLOSE
_KINDS = {
    PortProtocol.TCP: (socket.IPPROTO_TCP, _LISTEN),
    PortProtocol.UDP: (socket.IPPROTO_UDP, _UNCONNECTED),
    PortProtocol.SCTP: (socket.IPPROTO_SCTP, _LISTEN),
}


def listening_sockets(protocols: Iterable[PortProtocol]) -> list[ListeningSocket]:
    """Of the calling thread's network namespace. Raises OSError."""
    with NetlinkSocket(_NETLINK_SOCK_DIAG) as kernel:
        return [found for protocol in protocols for found in _of(kernel, protocol)]


def socket_owner(inode: int) -> tuple[str, str]:
    """(pid, command) of a process that has the socket; empty when none can be seen."""
    wanted = f"socket:[{inode}]"
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and _has(directory / "fd", wanted):
            try:
                return directory.name, (directory / "comm").read_text().strip()
            except OSError:
                continue  # it has just ended
    return "", ""


def _has(descriptors: Path, wanted: str) -> bool:
    try:
        return any(str(descriptor.readlink()) == wanted for descriptor in descriptors.iterdir())
    except OSError:
        return False


def _of(kernel: NetlinkSocket, protocol: PortProtocol) -> Iterator[ListeningSocket]:
    number, states = _KINDS[protocol]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            for answer in kernel.dump(_SOCK_DIAG_BY_FAMILY, _REQUEST.pack(family, number, 0, states)):
                yield _socket(protocol, answer)
        except OSError as error:
            # A protocol whose kernel module is not loaded has no sockets.
            if error.errno != errno.ENOENT:
                raise


def _socket(protocol: PortProtocol, answer: bytes) -> ListeningSocket:
    family, _, _, _, port, _, address, _, *_, inode = _ANSWER.unpack_from(answer)
    v6only = attributes(answer[_ANSWER.size :]).get(_V6ONLY, b"\1")
    shown = socket.inet_ntop(family, address if family == socket.AF_INET6 else address[:4])
    return ListeningSocket(
        protocol=protocol,
        address=shown,
        port=int.from_bytes(port, "big"),
        dual=family == socket.AF_INET6 and shown == "::" and v6only[0] == 0,
        inode=inode,
    )
