"""One verb at a time for each container. Reads never ask.

Waiting is bounded by the caller's deadline, and whoever waited in vain is told what was running.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from api_service.nodes.deadline import Deadline
from common.errors import Aborted


@dataclass(slots=True)
class _Held:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0  # who holds it and who waits for it; nobody: forgotten
    verb: str = ""
    since: float = 0.0


class ContainerLocks:
    """Belongs to one event loop. A fair queue for each container, or for each of another `kind` of thing."""

    def __init__(self, kind: str = "container") -> None:
        self._kind = kind
        self._held: dict[str, _Held] = {}

    @asynccontextmanager
    async def hold(self, container_id: str, verb: str, deadline: Deadline) -> AsyncIterator[None]:
        """Raises Aborted (reason `OPERATION_RUNNING`) when the deadline comes first."""
        held = self._held.setdefault(container_id, _Held())
        held.users += 1
        try:
            await self._acquire(held, container_id, verb, deadline)
            try:
                held.verb, held.since = verb, time.monotonic()
                yield
            finally:
                held.lock.release()
        finally:
            held.users -= 1
            if not held.users:
                del self._held[container_id]

    async def _acquire(self, held: _Held, container_id: str, verb: str, deadline: Deadline) -> None:
        try:
            async with asyncio.timeout(deadline.remaining):
                await held.lock.acquire()
        except TimeoutError as error:
            seconds = time.monotonic() - held.since
            raise Aborted(
                f"{self._kind} {container_id[:12]}: cannot {verb} it, a {held.verb} has been running for "
                f"{seconds:.1f} s; wait for that to end and repeat the request",
                reason="OPERATION_RUNNING",
                metadata={self._kind: container_id, "running": held.verb},
            ) from error
