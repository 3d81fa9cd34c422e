"""Deleting large trees without keeping anybody waiting: rename now, delete behind, finish at the next start.

`rm --one-file-system` does the deleting: it never follows a symlink, has no limit of depth, and stops at a mount that
was left below by mistake.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from executor_service.run import run
from executor_service.storage.durable import private_directory
from executor_service.threads import finish

_log = structlog.get_logger(__name__)

_DELETE_TIMEOUT = 600.0  # seconds for one tree


class Trash:
    """One directory and one task that empties it. Use as an async context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._stuck: set[Path] = set()
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await finish(lambda: private_directory(self._directory))
        self._wake.set()
        self._worker = asyncio.create_task(self._work(), name="storage-trash")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._worker is not None
        self._worker.cancel()
        with suppress(asyncio.CancelledError):
            await self._worker

    def throw(self, path: Path) -> bool:
        """Rename `path`, which must be on the same file system, into the trash; False when it was not there. Blocks
        for one rename(2) and may be called from a thread; call `empty_soon` afterwards."""
        try:
            path.rename(self._directory / f"{path.name}-{secrets.token_hex(4)}")
        except FileNotFoundError:
            return False
        return True

    def empty_soon(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def emptied(self) -> None:
        """Wait until everything thrown so far was deleted, or could not be."""
        await self._idle.wait()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for path in await finish(lambda: sorted(self._directory.iterdir())):
                if path not in self._stuck:
                    await self._delete(path)
            if not self._wake.is_set():
                self._idle.set()

    async def _delete(self, path: Path) -> None:
        try:
            done = await run(["rm", "-rf", "--one-file-system", "--", str(path)], timeout=_DELETE_TIMEOUT)
        except (OSError, TimeoutError) as error:
            self._keep(path, str(error))
        else:
            if done.returncode != 0:
                self._keep(path, done.message)

    def _keep(self, path: Path, error: str) -> None:
        """Immutable files, for one, would fail again and again."""
        self._stuck.add(path)
        _log.warning("trash kept until the next start", path=str(path), error=error)
