"""One lock of all replicas, for what only one of them may do at a time."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from api_service.store.claims import Claim, Claims


class ClusterLock:
    """`async with` it. Raises Unavailable. Belongs to one event loop."""

    def __init__(self, claims: Claims, name: str) -> None:
        self._claims = claims
        self._name = name
        self._queue = asyncio.Lock()
        self._held: AbstractAsyncContextManager[Claim] | None = None

    async def __aenter__(self) -> None:
        await self._queue.acquire()
        try:
            held = self._claims.hold(self._name)
            await held.__aenter__()
        except BaseException:
            self._queue.release()
            raise
        self._held = held

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._held is not None
        held, self._held = self._held, None
        try:
            await held.__aexit__(kind, error, trace)
        finally:
            self._queue.release()
