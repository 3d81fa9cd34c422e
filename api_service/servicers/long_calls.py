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
        self._calls: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Task[Any]] = set()
        self._ending = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what a call waits for. Raises Unavailable (reason `STOPPING`) in it when the service stops."""
        if self._ending:
            raise _stopping()
        task = asyncio.current_task()
        assert task is not None
        self._calls.add(task)  # gRPC's own: it is done when the status is on its way
        task.add_done_callback(self._calls.discard)
        self._waiting.add(task)
        try:
            yield
        except asyncio.CancelledError as error:
            if not self._ending:
                raise
            task.uncancel()
            raise _stopping() from error
        finally:
            self._waiting.discard(task)

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

    async def end(self, *, timeout: float) -> None:
        """Return when each has sent its status, or after so many seconds."""
        self._ending = True
        for task in self._waiting:
            task.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=timeout)


def _stopping() -> Unavailable:
    return Unavailable(
        "the API service is stopping; repeat the request, a stream of events from its last cursor",
        retry_after=1.0,
        reason="STOPPING",
    )
