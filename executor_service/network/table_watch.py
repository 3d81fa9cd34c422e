"""Notices when somebody deletes our nftables table, as `nft flush ruleset` does, and has it put back.

The kernel tells whoever listens of every change of its rules (the group NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h);
of those only the deletion of this one table counts. netlink(7)
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self

import structlog

from common.errors import SlipwayError
from executor_service.network.netlink import attributes, messages

_log = structlog.get_logger(__name__)

_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_NFNLGRP_NFTABLES = 7
_DELETE_TABLE = 10 << 8 | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
_GENERIC = struct.Struct("=BBH")  # struct nfgenmsg
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_RECEIVED = 64 * 1024
_RETRY = 5.0  # seconds, after a restore that failed


class TableWatch:
    """An async context manager; belongs to one event loop. `restore` puts the table back if it is not there."""

    def __init__(self, table: str, restore: Callable[[], Awaitable[None]]) -> None:
        self._table = table
        self._restore = restore
        self._gone = asyncio.Event()
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_NETFILTER)
        listening.bind((0, 0))
        listening.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _NFNLGRP_NFTABLES)
        self._socket = listening
        asyncio.get_running_loop().add_reader(listening, self._read, listening)
        self._task = asyncio.create_task(self._restore_forever(), name="watch nftables")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _read(self, listening: socket.socket) -> None:
        try:
            data = listening.recv(_RECEIVED)
        except OSError as error:
            if error.errno == errno.ENOBUFS:  # more was told than fits: it may have been this
                self._gone.set()
            return
        if self._table in deleted_tables(data):
            self._gone.set()

    async def _restore_forever(self) -> None:
        while True:
            await self._gone.wait()
            self._gone.clear()
            try:
                await self._restore()
            except SlipwayError as error:
                _log.error("nftables table not put back", table=self._table, error=error.message)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._gone.wait(), _RETRY)
                self._gone.set()


def deleted_tables(data: bytes) -> Iterator[str]:
    """Names of the tables whose deletion a datagram tells of."""
    for kind, payload in messages(data):
        if kind == _DELETE_TABLE:
            name = attributes(payload[_GENERIC.size :]).get(_TABLE_NAME, b"")
            yield name.rstrip(b"\0").decode(errors="replace")
