"""Waking the followers of logs when something is written: one inotify(7) instance for all of them.

The kernel allows a user 128 instances by default, so one for each follower would soon be refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from asyncinotify import Inotify, Mask, Watch

_CHANGES = Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR


@dataclass(slots=True)
class _Directory:
    watch: Watch
    waiting: set[asyncio.Event] = field(default_factory=set)


class LogWatcher:
    """Tells its subscribers that something in their log's directory was written, created or renamed."""

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        self._directories: dict[Path, _Directory] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[LogWatcher]:
        with Inotify() as inotify:
            watcher = cls(inotify)
            dispatching = asyncio.create_task(watcher._dispatch())
            try:
                yield watcher
            finally:
                dispatching.cancel()
                await asyncio.gather(dispatching, return_exceptions=True)

    @contextlib.contextmanager
    def subscribe(self, log: Path) -> Iterator[asyncio.Event]:
        """An event that is set whenever the log may have grown; the subscriber clears it. Raises FileNotFoundError."""
        path = log.parent
        directory = self._directories.get(path)
        if directory is None:
            directory = self._directories[path] = _Directory(self._inotify.add_watch(path, _CHANGES))
        event = asyncio.Event()
        directory.waiting.add(event)
        try:
            yield event
        finally:
            directory.waiting.discard(event)
            if not directory.waiting and self._directories.get(path) is directory:
                del self._directories[path]
                with contextlib.suppress(OSError):  # the directory was removed, and its watch with it
                    self._inotify.rm_watch(directory.watch)

    async def _dispatch(self) -> None:
        while True:
            event = await self._inotify.get()
            if event.watch is None or Mask.Q_OVERFLOW in event.mask:
                # Events were lost, nobody knows whose.
                for directory in self._directories.values():
                    _wake(directory)
                continue
            found = self._directories.get(event.watch.path)
            if found is not None:
                _wake(found)
                if Mask.IGNORED in event.mask:
                    del self._directories[event.watch.path]


def _wake(directory: _Directory) -> None:
    for event in directory.waiting:
        event.set()
