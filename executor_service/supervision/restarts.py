"""The pending restarts: a timer for each, and a bound on how many containers are started at once.

What is pending stands in the records; a timer only says when to look. So one that is late or superfluous does no harm,
and a new executor sets them again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from common.errors import Unavailable
from executor_service.tasks import cancel_all

_log = structlog.get_logger(__name__)

_TOGETHER = 8  # a machine that boots has hundreds to start, and calls to answer
_RETRY = 1.0  # seconds until a restart that could not even be recorded is tried again

Restart = Callable[[str, int], Awaitable[None]]
"""Given a container's id and the `next_start` it was set for."""


class Restarts:
    """Use as an async context manager: leaving it forgets the timers, and cancels the starts under way.

    `ready` is awaited before a slot is taken: it waits for what the container depends on, which needs slots itself.
    """

    def __init__(self, *, ready: Restart, start: Restart) -> None:
        self._ready = ready
        self._start = start
        self._slots = asyncio.Semaphore(_TOGETHER)
        self._pending: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Restarts:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_all(self._tasks)

    def set(self, container_id: str, next_start: int) -> None:
        """Restart it at that time (nanoseconds since the epoch), at once when it has passed."""
        task = asyncio.create_task(self._run(container_id, next_start), name=f"restart {container_id[:12]}")
        self._tasks.add(task)
        self._pending[container_id] = task
        task.add_done_callback(lambda _: self._forget(container_id, task))

    def cancel(self, container_id: str) -> None:
        """Nothing pending: nothing happens. The caller holds the container's lock, so no start of it is under way."""
        if (task := self._pending.pop(container_id, None)) is not None:
            task.cancel()

    def _forget(self, container_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._pending.get(container_id) is task:
            del self._pending[container_id]

    async def _run(self, container_id: str, next_start: int) -> None:
        structlog.contextvars.clear_contextvars()  # those of the call that started it
        await asyncio.sleep((next_start - time.time_ns()) / 1e9)
        while True:
            try:
                await self._ready(container_id, next_start)
                async with self._slots:
                    await self._start(container_id, next_start)
                return
            except Unavailable:
                return  # the executor is stopping; the one after it goes on with this
            except Exception as error:
                # Nothing here may end supervision: a container that is started late is better than one never started.
                _log.error("restart failed", container=container_id, exc_info=error)
            await asyncio.sleep(_RETRY)
