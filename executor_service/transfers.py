"""Pulls and pushes under way, each with whoever wants it: equal requests are one, and everybody sees its progress."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from common.errors import Unavailable
from executor_service.registry.source import Patience
from executor_service.storage.layer_progress import LayerProgress, Report
from executor_service.tasks import Operations

T = TypeVar("T")
Work = Callable[[Report, Patience], Coroutine[Any, Any, T]]


@dataclass(slots=True)
class _Transfer:
    """`deadlines` of its followers, in seconds of `time.monotonic()`; `layers`: the newest of each. `changed` is
    replaced at every change."""

    deadlines: list[float] = field(default_factory=list)
    layers: dict[str, LayerProgress] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def report(self, progress: LayerProgress) -> None:
        self.layers[progress.digest] = progress
        self.wake()

    def patience(self) -> float:
        """Of the follower who waits longest."""
        return max(self.deadlines, default=0.0) - time.monotonic()

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Transfers(Generic[T]):
    """Of one node and one direction. A follower that leaves leaves alone; with the last one the work is cancelled."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._running: dict[Hashable, tuple[_Transfer, asyncio.Task[T]]] = {}

    async def follow(self, key: Hashable, work: Work[T], *, deadline: float) -> AsyncGenerator[LayerProgress | T]:
        """The state of each layer whenever it changed, as often as the caller takes it; then the outcome. `work`
        begins unless one with the same `key` runs. `deadline`: until when this follower waits, in seconds of
        `time.monotonic()`, for the work to know. Raises what it raises."""
        found = self._running.get(key)
        transfer, task = found if found is not None and not found[1].done() else self._begin(key, work)
        transfer.deadlines.append(deadline)
        seen: dict[str, LayerProgress] = {}
        try:
            while True:
                done, changed = task.done(), transfer.changed
                for digest, progress in list(transfer.layers.items()):
                    if seen.get(digest) != progress:
                        seen[digest] = progress
                        yield progress
                if done:
                    yield _outcome(task)
                    return
                await changed.wait()
        finally:
            transfer.deadlines.remove(deadline)
            if not transfer.deadlines and not task.done():
                self._forget(key, transfer)
                task.cancel()

    def _begin(self, key: Hashable, work: Work[T]) -> tuple[_Transfer, asyncio.Task[T]]:
        transfer = _Transfer()
        task = self._operations.begin(work(transfer.report, transfer.patience))

        def ended(_: asyncio.Task[T]) -> None:
            self._forget(key, transfer)
            transfer.wake()

        task.add_done_callback(ended)
        self._running[key] = transfer, task
        return transfer, task

    def _forget(self, key: Hashable, transfer: _Transfer) -> None:
        if key in self._running and self._running[key][0] is transfer:
            del self._running[key]


def _outcome(task: asyncio.Task[T]) -> T:
    if task.cancelled():
        raise Unavailable("the executor is stopping; repeat the request, it goes on where it stopped", retry_after=1.0)
    return task.result()
