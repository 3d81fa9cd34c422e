"""Listens to what the kernel tells of its network, and has put right what somebody else took away. netlink(7)"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import structlog

_log = structlog.get_logger(__name__)

_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP = 270, 1
_RECEIVED = 64 * 1024
_RETRY = 5.0  # seconds, after a restore that failed


class Watch:
    """An async context manager; belongs to one event loop. `protocol` and `group` are netlink's, `concerns` says
    whether a datagram of the group tells of a loss, `restore` puts right what is lost, if anything is. `prepare`:
    done to the socket before it listens, as a filter for a group that tells of much else."""

    def __init__(
        self,
        what: str,
        *,
        protocol: int,
        group: int,
        concerns: Callable[[bytes], bool],
        restore: Callable[[], Awaitable[None]],
        prepare: Callable[[socket.socket], None] | None = None,
    ) -> None:
        self._what = what
        self._protocol = protocol
        self._group = group
        self._concerns = concerns
        self._restore = restore
        self._prepare = prepare
        self._gone = asyncio.Event()
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, self._protocol)
        if self._prepare is not None:
            self._prepare(listening)
        listening.bind((0, 0))
        listening.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, self._group)
        self._socket = listening
        asyncio.get_running_loop().add_reader(listening, self._read, listening)
        self._task = asyncio.create_task(self._restore_forever(), name=f"watch {self._what}")
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
        if self._concerns(data):
            self._gone.set()

    async def _restore_forever(self) -> None:
        while True:
            await self._gone.wait()
            self._gone.clear()
            try:
                await self._restore()
            except Exception as error:
                # Whatever it is: nobody else would notice the next loss.
                _log.error(f"{self._what} not put back", error=str(error))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._gone.wait(), _RETRY)
                self._gone.set()
