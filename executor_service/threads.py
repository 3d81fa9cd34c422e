"""Blocking work on threads, and work that is not to be left half-done by a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def finish(work: Callable[[], T], *, pool: Executor | None = None) -> T:
    """Run `work` in a thread and return its result. A cancel is answered after the thread ended, so whoever holds a
    lock around this call holds it as long as the thread works."""
    return await to_the_end(asyncio.get_running_loop().run_in_executor(pool, work))


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run blocking `work` on a new thread that ends with it.

    For work that leaves its thread in another namespace: no thread that has moved is ever used again."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="namespace")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, work)
    finally:
        executor.shutdown(wait=False)


async def to_the_end(work: Awaitable[T]) -> T:
    """Await `work` until it has ended, whatever cancels the caller meanwhile; the cancel is raised afterwards.

    A thread or a queued write cannot be called back: before its effects are undone it must have ended."""
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({future})
        if not future.cancelled():
            future.exception()  # looked at, so that it is not reported as forgotten
        raise
