"""The signals that end a benchmark: the first lets it clean up, and no later one disturbs it in that."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ignore() -> None:
    """From here on the benchmark cleans up; what it starts for that ignores them as well."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


async def interruptible(work: Awaitable[None]) -> bool:
    """Whether the work ended by itself; the first of these signals cancels it."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        interrupted = True
        for number in INTERRUPTS:
            loop.remove_signal_handler(number)
        ignore()
        task.cancel()

    for number in INTERRUPTS:
        loop.add_signal_handler(number, interrupt)
    await asyncio.wait([task])
    if not (interrupted and task.cancelled()):
        task.result()
    return not interrupted
