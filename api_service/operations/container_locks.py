"""One verb at a time for each container, whichever replica it came to. Reads never ask.

Waiting is bounded by the caller's deadline, and whoever waited in vain is told what was running. A verb that has begun
is not stopped when its replica is cut off for so long that the lock passes to another: records are compared before they
are written, and the node does one thing at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from api_service.deadline import Deadline
from api_service.store.claims import Claims
from common.errors import Aborted


@dataclass(slots=True)
class _Held:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0  # who holds it and who waits for it; nobody: forgotten
    verb: str = ""
    since: float = 0.0


class ContainerLocks:
    """Belongs to one event loop. A fair queue in this process for each container, or for each of another `kind` of
    thing, and a claim that no other process has."""

    def __init__(self, claims: Claims, kind: str = "container") -> None:
        self._claims = claims
        self._kind = kind
        self._held: dict[str, _Held] = {}

    @asynccontextmanager
    async def hold(self, container_id: str, verb: str, deadline: Deadline) -> AsyncIterator[None]:
        """Raises Aborted (reason `OPERATION_RUNNING`) when the deadline comes first, Unavailable."""
        held = self._held.setdefault(container_id, _Held())
        held.users += 1
        begun = time.monotonic()
        try:
            async with AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(deadline.remaining):
                        await held.lock.acquire()
                        stack.callback(held.lock.release)
                        await stack.enter_async_context(self._claims.hold(self._claim(container_id), note=verb))
                except TimeoutError as error:
                    raise await self._refused(held, container_id, verb, begun) from error
                held.verb, held.since = verb, time.monotonic()
                stack.callback(_idle, held)
                yield
        finally:
            held.users -= 1
            if not held.users:
                del self._held[container_id]

    async def _refused(self, held: _Held, container_id: str, verb: str, begun: float) -> Aborted:
        running, how_long = held.verb, f"been running for {time.monotonic() - held.since:.1f} s"
        if not running:
            holder = await self._claims.holder(self._claim(container_id))
            running = holder.note if holder is not None else "change"
            how_long = f"not ended on another replica in {time.monotonic() - begun:.1f} s"
        return Aborted(
            f"{self._kind} {container_id[:12]}: cannot {verb} it, a {running} has {how_long}; "
            "wait for that to end and repeat the request",
            reason="OPERATION_RUNNING",
            metadata={self._kind: container_id, "running": running},
        )

    def _claim(self, container_id: str) -> str:
        return f"locks/{self._kind}/{container_id}"


def _idle(held: _Held) -> None:
    held.verb = ""
