"""Work that outlives the call which asked for it: half a start is neither done nor undone, so it runs to its end
whether or not the client is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from common.errors import SlipwayError, Unavailable

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Jobs:
    """Use as an async context manager. Leaving it waits `grace` seconds for what runs, then cancels it."""

    def __init__(self, *, grace: float) -> None:
        self._grace = grace
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if self._running:
            await asyncio.wait(self._running, timeout=self._grace)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    def start(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """The caller takes the outcome, if it stays to take it. Raises Unavailable when the service is stopping."""
        if self._closed:
            work.close()
            raise Unavailable("the API service is stopping; repeat the request", retry_after=1.0, reason="STOPPING")
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def finish(self, work: Coroutine[Any, Any, T], *, name: str) -> T:
        """Run it to its end; a caller that is cancelled meanwhile leaves without it."""
        return await asyncio.shield(self.start(work, name=name))

    def background(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Nobody waits: an error goes to the log."""
        if self._closed:
            work.close()
        else:
            self.start(_logged(work, name), name=name)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # taken by the caller, or by nobody: then it is not worth a warning of its own


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when the caller is cancelled, and be cancelled then: for the short steps whose undo
    must know whether they happened."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _logged(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except SlipwayError as error:
        _log.warning("background work failed", work=name, reason=error.reason, error=error.message)
    except Exception as error:
        _log.error("background work failed", work=name, exc_info=error)
