"""Blocking work that is never left running behind its caller's back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def finish(work: Callable[[], T], *, pool: Executor | None = None) -> T:
    """Run `work` in a thread and return its result. A cancel is answered after the thread ended, so whoever holds a
    lock around this call holds it as long as the thread works."""
    return await settle(asyncio.get_running_loop().run_in_executor(pool, work))


async def settle(awaitable: Awaitable[T]) -> T:
    """Await `awaitable` to its end even when cancelled; the cancel is raised afterwards."""
    future = asyncio.ensure_future(awaitable)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({future})
        if not future.cancelled():
            future.exception()
        raise
