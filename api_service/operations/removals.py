"""The removals under way: whoever wants a container removed that is being removed waits for the same job."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(slots=True)
class Removal:
    """`force` and `volumes` become true when anybody who waits asked for it."""

    force: bool
    volumes: bool = False
    task: asyncio.Task[None] | None = None


class Removals:
    """By container id."""

    def __init__(self) -> None:
        self._running: dict[str, Removal] = {}

    def get(self, container_id: str) -> Removal | None:
        return self._running.get(container_id)

    def begin(self, container_id: str, task: asyncio.Task[None], removal: Removal) -> None:
        removal.task = task
        self._running[container_id] = removal
        task.add_done_callback(lambda _: self._running.pop(container_id, None))
