"""Notices when somebody deletes our nftables table, as `nft flush ruleset` does, and has it put back.

The kernel tells whoever listens of every change of its rules (the group NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h);
of those only the deletion of this one table counts.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Iterator

from executor_service.network.netlink import attributes, messages
from executor_service.network.watch import Watch

_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_DELETE_TABLE = 10 << 8 | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
_GENERIC = struct.Struct("=BBH")  # struct nfgenmsg
_TABLE_NAME = 1  # NFTA_TABLE_NAME


def watch_table(table: str, restore: Callable[[], Awaitable[None]]) -> Watch:
    """`restore` puts the table back if it is not there."""
    return Watch(
        "nftables table",
        protocol=_NETLINK_NETFILTER,
        group=_NFNLGRP_NFTABLES,
        concerns=lambda data: table in deleted_tables(data),
        restore=restore,
    )


def deleted_tables(data: bytes) -> Iterator[str]:
    """Names of the tables whose deletion a datagram tells of."""
    for kind, payload in messages(data):
        if kind == _DELETE_TABLE:
            name = attributes(payload[_GENERIC.size :]).get(_TABLE_NAME, b"")
            yield name.rstrip(b"\0").decode(errors="replace")
