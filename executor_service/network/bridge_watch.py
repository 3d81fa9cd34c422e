"""Notices when somebody deletes a bridge of ours, and has it made again with everything that was plugged into it.

The kernel tells of every change of an interface (the group RTNLGRP_LINK, linux/rtnetlink.h), a dozen times for a
container's start: a filter in the kernel lets deletions alone through. Of those only that of a bridge counts; a veth
that is gone was its container's end, or that container's own doing.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator

from executor_service.network.netlink import attributes, messages
from executor_service.network.watch import Watch

_RTNLGRP_LINK = 1
_RTM_DELLINK = 17
_LINK_LENGTH = 16  # struct ifinfomsg; its first byte is the family, AF_BRIDGE when only a port has left its bridge
_IFLA_IFNAME = 3
_SO_ATTACH_FILTER = 26
_LOAD_HALF, _JUMP_EQUAL, _RETURN = 0x28, 0x15, 0x06  # BPF_LD|BPF_H|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
_TYPE_OFFSET = 4  # of nlmsg_type in struct nlmsghdr


def watch_bridges(is_ours: Callable[[str], bool], restore: Callable[[], Awaitable[None]]) -> Watch:
    """`is_ours` tells a bridge by its name; `restore` makes those again that are not there."""
    return Watch(
        "bridge",
        protocol=socket.NETLINK_ROUTE,
        group=_RTNLGRP_LINK,
        concerns=lambda data: any(map(is_ours, deleted_links(data))),
        restore=restore,
        prepare=_deletions_only,
    )


def deleted_links(data: bytes) -> Iterator[str]:
    """Names of the interfaces whose deletion a datagram tells of."""
    for kind, payload in messages(data):
        if kind == _RTM_DELLINK and payload[:1] == bytes([socket.AF_UNSPEC]):
            name = attributes(payload[_LINK_LENGTH:]).get(_IFLA_IFNAME, b"")
            yield name.rstrip(b"\0").decode(errors="replace")


def _deletions_only(listening: socket.socket) -> None:
    """socket(7), SO_ATTACH_FILTER. The filter reads numbers in the network's byte order."""
    kind = int.from_bytes(_RTM_DELLINK.to_bytes(2, sys.byteorder), "big")
    program = b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            (_LOAD_HALF, 0, 0, _TYPE_OFFSET),
            (_JUMP_EQUAL, 0, 1, kind),
            (_RETURN, 0, 0, 0xFFFFFFFF),
            (_RETURN, 0, 0, 0),
        )
    )
    held = ctypes.create_string_buffer(program)
    count = len(program) // _INSTRUCTION.size
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", count, ctypes.addressof(held)))
