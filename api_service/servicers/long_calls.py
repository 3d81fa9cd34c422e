"""Calls without an end of their own: events, waits, logs that are followed. A service that stops ends them at once, so
that its grace is for those that come to an end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from common.errors import Unavailable


class LongCalls:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the whole call. Raises Unavailable (reason `STOPPING`) in it when the service stops."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError as error:
            if not self._ending:
                raise
            task.uncancel()
            raise Unavailable(
                "the API service is stopping; repeat the request, a stream of events from its last cursor",
                retry_after=1.0,
                reason="STOPPING",
            ) from error
        finally:
            self._tasks.discard(task)

    def end(self) -> None:
        self._ending = True
        for task in self._tasks:
            task.cancel()
