"""Calls without an end of their own: events, waits, logs that are followed. A service that stops ends them at once, so
that its grace is for those that come to an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from common.errors import Unavailable

_Response = TypeVar("_Response")


class LongCalls:
    """Interrupts them only where they wait for the engine: gRPC loses a call that is interrupted while it sends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what a call waits for. Raises Unavailable (reason `STOPPING`) in it when the service stops."""
        if self._ending:
            raise _stopping()
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError as error:
            if not self._ending:
                raise
            task.uncancel()
            raise _stopping() from error
        finally:
            self._tasks.discard(task)

    @asynccontextmanager
    async def stream(self, responses: AsyncGenerator[_Response]) -> AsyncIterator[AsyncIterator[_Response]]:
        """The responses, each waited for as in `waiting`, and closed with the block."""
        async with aclosing(responses), aclosing(self._each(responses)) as each:
            yield each

    async def _each(self, responses: AsyncGenerator[_Response]) -> AsyncGenerator[_Response, None]:
        while True:
            with self.waiting():
                try:
                    response = await anext(responses)
                except StopAsyncIteration:
                    return
            yield response

    def end(self) -> None:
        self._ending = True
        for task in self._tasks:
            task.cancel()


def _stopping() -> Unavailable:
    return Unavailable(
        "the API service is stopping; repeat the request, a stream of events from its last cursor",
        retry_after=1.0,
        reason="STOPPING",
    )
