"""Connections that the kernel has translated for published ports, forgotten when the port leads elsewhere.

Without that, datagrams of a client that goes on sending are led where the port led before, or nowhere: an entry is
looked up before any rule. Source: linux/netfilter/nfnetlink_conntrack.h. Blocks.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Collection
from ipaddress import ip_address

from executor_service.network.netlink import NetlinkSocket, attribute, attributes, nested
from executor_service.network.port_leases import Lease
from executor_service.ports import PortProtocol

_NETLINK_NETFILTER = 12
_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK
_TUPLE_ORIG, _TUPLE_REPLY, _FILTER = 1, 2, 25
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_V4_SRC, _V6_SRC = 1, 3
_PROTO_NUM, _PROTO_SRC_PORT, _PROTO_DST_PORT = 1, 2, 3
_FILTER_ORIG_FLAGS, _FILTER_REPLY_FLAGS = 1, 2
_BY_SOURCE, _BY_PROTOCOL = 1 << 0, 1 << 3  # CTA_FILTER_F_CTA_IP_SRC, CTA_FILTER_F_CTA_PROTO_NUM
_NUMBERS = {
    PortProtocol.TCP: socket.IPPROTO_TCP,
    PortProtocol.UDP: socket.IPPROTO_UDP,
    PortProtocol.SCTP: socket.IPPROTO_SCTP,
}


def forget_translated(leases: Collection[Lease]) -> None:
    """Every connection that these leases led to their containers. Raises OSError."""
    for target in {lease.target for lease in leases}:
        ports = {(_NUMBERS[lease.protocol], lease.container_port) for lease in leases if lease.target == target}
        address = ip_address(target).packed
        source = _V4_SRC if len(address) == 4 else _V6_SRC

        def led_there(
            entry: dict[int, bytes],
            ports: Collection[tuple[int, int]] = ports,
            whence: tuple[int, bytes] = (source, address),
        ) -> bool:
            protocol = _protocol(entry, _TUPLE_REPLY)
            kind, wanted = whence
            found = attributes(attributes(entry[_TUPLE_REPLY])[_TUPLE_IP]).get(kind)
            return found == wanted and (protocol[_PROTO_NUM][0], _port(protocol, _PROTO_SRC_PORT)) in ports

        if source == _V4_SRC:
            where = nested(_TUPLE_IP, attribute(source, address))
            _forget(socket.AF_INET, nested(_TUPLE_REPLY, where) + _filtered(reply=_BY_SOURCE), led_there)
            continue
        # Of IPv6 the kernel's filter takes every source but the one that is asked for.
        for number in {number for number, _ in ports}:
            which = nested(_TUPLE_PROTO, attribute(_PROTO_NUM, bytes([number])))
            _forget(socket.AF_INET6, nested(_TUPLE_REPLY, which) + _filtered(reply=_BY_PROTOCOL), led_there)


def forget_datagrams_to(leases: Collection[Lease]) -> None:
    """Every flow of UDP to the host's ports of these leases, wherever it was led before them. Raises OSError."""
    for family in (socket.AF_INET, socket.AF_INET6):
        ports = {
            lease.host_port
            for lease in leases
            if lease.protocol is PortProtocol.UDP and (":" in lease.host_ip) is (family == socket.AF_INET6)
        }
        if not ports:
            continue
        number = attribute(_PROTO_NUM, bytes([socket.IPPROTO_UDP]))
        body = nested(_TUPLE_ORIG, nested(_TUPLE_PROTO, number)) + _filtered(original=_BY_PROTOCOL)

        def led_here(entry: dict[int, bytes], ports: Collection[int] = ports) -> bool:
            return _port(_protocol(entry, _TUPLE_ORIG), _PROTO_DST_PORT) in ports

        _forget(family, body, led_here)


def _forget(family: int, body: bytes, wanted: Callable[[dict[int, bytes]], bool]) -> None:
    head = struct.pack("=BBH", family, 0, 0)
    with NetlinkSocket(_NETLINK_NETFILTER) as kernel:
        entries = [attributes(answer[len(head) :]) for answer in kernel.dump(_GET, head + body)]
        for entry in entries:
            if wanted(entry):
                try:
                    kernel.request(_DELETE, head + attribute(_TUPLE_ORIG | 0x8000, entry[_TUPLE_ORIG]))
                except OSError as error:
                    if error.errno != errno.ENOENT:
                        raise


def _filtered(*, original: int = 0, reply: int = 0) -> bytes:
    return nested(
        _FILTER,
        attribute(_FILTER_ORIG_FLAGS, struct.pack("=I", original)),
        attribute(_FILTER_REPLY_FLAGS, struct.pack("=I", reply)),
    )


def _protocol(entry: dict[int, bytes], direction: int) -> dict[int, bytes]:
    return attributes(attributes(entry[direction])[_TUPLE_PROTO])


def _port(protocol: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(protocol.get(kind, b""), "big")
