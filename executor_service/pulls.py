"""Pulls under way, each with whoever wants it: equal requests are one pull, and everybody sees its progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from typing import Any

from common.errors import Unavailable
from executor_service.storage.images import PulledImage
from executor_service.storage.layer_pull import LayerProgress, Report
from executor_service.tasks import Operations

Work = Callable[[Report], Coroutine[Any, Any, PulledImage]]


@dataclass(slots=True)
class _Pull:
    """`layers`: the newest of each. `changed` is replaced at every change."""

    followers: int = 0
    layers: dict[str, LayerProgress] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def report(self, progress: LayerProgress) -> None:
        self.layers[progress.digest] = progress
        self.wake()

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class Pulls:
    """Of one node. A follower that leaves leaves alone; with the last one the pull is cancelled."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._running: dict[Hashable, tuple[_Pull, asyncio.Task[PulledImage]]] = {}

    async def follow(self, key: Hashable, work: Work) -> AsyncGenerator[LayerProgress | PulledImage]:
        """The state of each layer whenever it changed, as often as the caller takes it; then the image. `work` begins
        unless a pull with the same `key` runs. Raises what it raises."""
        found = self._running.get(key)
        pull, task = found if found is not None and not found[1].done() else self._begin(key, work)
        pull.followers += 1
        seen: dict[str, LayerProgress] = {}
        try:
            while True:
                done, changed = task.done(), pull.changed
                for digest, progress in list(pull.layers.items()):
                    if seen.get(digest) != progress:
                        seen[digest] = progress
                        yield progress
                if done:
                    yield _outcome(task)
                    return
                await changed.wait()
        finally:
            pull.followers -= 1
            if not pull.followers and not task.done():
                self._forget(key, pull)
                task.cancel()

    def _begin(self, key: Hashable, work: Work) -> tuple[_Pull, asyncio.Task[PulledImage]]:
        pull = _Pull()
        task = self._operations.begin(work(pull.report))

        def ended(_: asyncio.Task[PulledImage]) -> None:
            self._forget(key, pull)
            pull.wake()

        task.add_done_callback(ended)
        self._running[key] = pull, task
        return pull, task

    def _forget(self, key: Hashable, pull: _Pull) -> None:
        if key in self._running and self._running[key][0] is pull:
            del self._running[key]


def _outcome(task: asyncio.Task[PulledImage]) -> PulledImage:
    if task.cancelled():
        raise Unavailable("the executor is stopping; repeat the pull, it goes on where it stopped", retry_after=1.0)
    return task.result()
