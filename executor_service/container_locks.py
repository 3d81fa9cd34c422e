"""One operation at a time on a container; what only reads asks nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from common.errors import Aborted
from executor_service.storage.keyed_locks import KeyedLocks


class ContainerLocks:
    def __init__(self, *, timeout: float) -> None:
        self._locks = KeyedLocks()
        self._timeout = timeout

    @asynccontextmanager
    async def hold(self, container_id: str) -> AsyncIterator[None]:
        """Wait for the container's other operation, at most as long as the call's deadline and our own bound allow.
        Raises Aborted."""
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(self._timeout):
                    await held.enter_async_context(self._locks.hold(container_id))
            except TimeoutError as error:
                raise Aborted(
                    f"container {container_id!r}: another operation on it has not ended in {self._timeout:g} s; repeat "
                    "the call when it has",
                    reason="OPERATION_UNDER_WAY",
                ) from error
            yield

    @asynccontextmanager
    async def hold_patiently(self, container_id: str) -> AsyncIterator[None]:
        """Wait as long as it takes: for the executor's own work, which nobody waits for."""
        async with self._locks.hold(container_id):
            yield
