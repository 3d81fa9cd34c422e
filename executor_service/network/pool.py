"""Sandboxes prepared ahead of time, so that a container's start need not wait for one to be made."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from executor_service.network.records import SandboxRecord

_log = structlog.get_logger(__name__)

# Making a sandbox competes with the start that took one, for the RTNL lock, the database and the processor: later.
_REFILL_DELAY = 0.05  # seconds


class SandboxPool:
    """At most `size` sandboxes of a kind that are nobody's yet, refilled in the background.

    `prepare` makes one, undoing itself when it fails or is cancelled."""

    def __init__(self, *, size: int, prepare: Callable[[], Awaitable[SandboxRecord]]) -> None:
        self._size = size
        self._prepare = prepare
        self._ready: deque[SandboxRecord] = deque()
        self._taken = asyncio.Event()
        self._filled = asyncio.Event()
        if size == 0:
            self._filled.set()
        self._refilling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to fill. Idempotent; without it the pool stays empty."""
        if self._size > 0 and self._refilling is None:
            self._taken.set()
            self._refilling = asyncio.create_task(self._refill(), name="network-sandbox-pool")

    async def stop(self) -> set[str]:
        """Stop filling and empty the pool. The tokens of the unused sandboxes returned are the caller's to discard."""
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.wait([self._refilling])
            self._refilling = None
        return self.drain()

    def take(self) -> SandboxRecord | None:
        """A sandbox that is now the caller's, or None when none stands ready. Never waits."""
        if self._size > 0:
            self._taken.set()
            self._filled.clear()
        return self._ready.popleft() if self._ready else None

    def put_back(self, record: SandboxRecord) -> None:
        """One that was taken and is still as it was."""
        self._ready.appendleft(record)

    def drain(self) -> set[str]:
        """Take them all; returns their tokens."""
        tokens = {record.token for record in self._ready}
        self._ready.clear()
        return tokens

    async def wait_filled(self) -> None:
        """Return once the refill that is under way or due has ended, successfully or not."""
        await self._filled.wait()

    async def _refill(self) -> None:
        while True:
            await self._taken.wait()
            await asyncio.sleep(_REFILL_DELAY)
            self._taken.clear()
            try:
                while len(self._ready) < self._size:
                    self._ready.append(await self._prepare())
            except Exception:
                # Without a prepared one a create makes its own, and reports what is wrong; the next take tries again.
                _log.warning("no sandbox prepared ahead", exc_info=True)
            self._filled.set()
