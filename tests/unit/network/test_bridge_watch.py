"""What the kernel tells of interfaces that are gone."""

from __future__ import annotations

import socket
import struct

from executor_service.network.bridge_watch import deleted_links


def link(kind: int, name: str, *, family: int = socket.AF_UNSPEC) -> bytes:
    attribute = struct.pack("=HH", 4 + len(name) + 1, 3) + name.encode() + b"\0"
    body = struct.pack("=BxHiII", family, 0, 7, 0, 0) + attribute + bytes(-len(attribute) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_only_an_interface_that_is_deleted_counts() -> None:
    # 16 is RTM_NEWLINK, 17 RTM_DELLINK; the bridge's own family tells that a port has left it.
    data = link(16, "br-1") + link(17, "br-2") + link(17, "br-3", family=socket.AF_BRIDGE) + link(17, "veth4")
    assert list(deleted_links(data)) == ["br-2", "veth4"]


def test_what_is_cut_short_names_nothing() -> None:
    assert list(deleted_links(b"")) == []
    assert list(deleted_links(link(17, "br-1")[:30])) in ([], [""])
