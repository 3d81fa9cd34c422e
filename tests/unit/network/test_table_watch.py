"""What the kernel tells of deleted tables, as bytes."""

from __future__ import annotations

import struct

from executor_service.network.netlink import attribute
from executor_service.network.table_watch import deleted_tables

_DELETE_TABLE, _NEW_TABLE, _DELETE_CHAIN = 0xA02, 0xA00, 0xA05


def told(kind: int, name: str) -> bytes:
    body = struct.pack("=BBH", 1, 0, 0) + attribute(1, name.encode() + b"\0")
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_only_the_deletion_of_tables_counts() -> None:
    data = (
        told(_NEW_TABLE, "one") + told(_DELETE_TABLE, "two") + told(_DELETE_CHAIN, "three") + told(_DELETE_TABLE, "x")
    )
    assert list(deleted_tables(data)) == ["two", "x"]


def test_what_is_cut_off_tells_of_nothing() -> None:
    assert list(deleted_tables(b"")) == []
    assert list(deleted_tables(told(_DELETE_TABLE, "two")[:12])) == []
