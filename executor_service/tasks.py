"""Work that is cancelled whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Literal, TypeVar

import structlog

from common.errors import ResourceExhausted, Unavailable
from executor_service.threads import to_the_end

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_MAX_OPERATIONS = 1024


class Operations:
    """Runs each operation in a task of its own, which outlives the call that asked for it and is waited for at the
    end. A vanished caller either lets its operation finish or cancels it; a cancelled one undoes itself, and because
    it is cancelled once and by nobody else, its undo is never interrupted.
    """

    def __init__(self, *, limit: int = _MAX_OPERATIONS) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asked_for: set[asyncio.Task[Any]] = set()
        self._limit = limit
        self._closing = False

    async def run(self, operation: Coroutine[Any, Any, T], *, abandoned: Literal["finish", "cancel"]) -> T:
        """Raises ResourceExhausted when too much is under way already, Unavailable when the service is stopping."""
        task = self.begin(operation)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if abandoned == "cancel":
                task.cancel()
            raise

    def begin(self, operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run an operation whose callers come and go. Raises as `run` does."""
        try:
            self._admit()
        except BaseException:
            operation.close()
            raise
        task = self.start(operation)
        self._asked_for.add(task)
        task.add_done_callback(self._asked_for.discard)
        return task

    def start(self, operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work that nobody asked for, which there is as much of as there are containers."""
        task = asyncio.create_task(operation)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def drain(self, *, timeout: float) -> None:
        """Take no more, wait `timeout` seconds for what is under way, then cancel it and wait for its undo."""
        self._closing = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            await cancel_all(late)

    def _admit(self) -> None:
        if self._closing:
            raise Unavailable("the executor is stopping; repeat the call in a moment", retry_after=1.0)
        if (under_way := len(self._asked_for)) >= self._limit:
            raise ResourceExhausted(
                f"{under_way} operations are under way already; repeat the call later", reason="TOO_MANY_CALLS"
            )

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its caller may be gone; asyncio would complain of an exception nobody looked at.
            _log.debug("operation failed", error=str(error))


async def cancel_all(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Returns when they have ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


async def together(*works: Coroutine[Any, Any, Any]) -> None:
    """Run side by side. The first failure, or a cancel, cancels the others; it is raised after all have ended."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await to_the_end(asyncio.wait(tasks))


async def bounded(name: str, work: Callable[[], Awaitable[object]], *, timeout: float, container: str) -> bool:
    """Run a step of an undo to its end or for `timeout` seconds, whatever became of the caller. Never raises: the
    steps after it must run. True when it succeeded.

    In a task of its own, because `asyncio.timeout` does not work in a cancelled one (before Python 3.11.4).
    """

    async def step() -> None:
        await work()

    task = asyncio.create_task(step())
    await to_the_end(asyncio.wait({task}, timeout=timeout))
    if not task.done():
        task.cancel()
        _log.error("undo does not end", step=name, container=container, seconds=timeout)
        return False
    if task.cancelled() or (error := task.exception()) is not None:
        _log.error("undo failed", step=name, container=container, exc_info=None if task.cancelled() else error)
        return False
    return True
