"""Blocking work on threads, and work that is not to be left half-done by a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run blocking `work` on a new thread that ends with it.

    For work that leaves its thread in another namespace: no thread that has moved is ever used again."""
    executor = ThreadPoolExecutor(1, thread_name_prefix="network-namespace")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, work)
    finally:
        executor.shutdown(wait=False)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` until it has ended, whatever cancels the caller meanwhile; the cancel is delivered afterwards.

    A thread or a queued write cannot be called back: before its effects are undone it must have ended."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # looked at, so that it is not reported as forgotten
    raise cancelled
