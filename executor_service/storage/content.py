"""What was downloaded of images and is not unpacked yet: compressed layers by their digest.

`content/partial/<digest>` grows while a blob is downloaded; `content/blobs/<digest>` is whole and verified. A partial
file is never synced: the hash is computed from the file again when a download goes on, so what a power cut made of it
is found out at the end, and the blob is then downloaded anew. A finished one is synced, renamed, and both directories
are synced, so whatever is in `blobs` has its digest.

Blobs are kept until the image is recorded, because the layers of a pull that died are collected at the next start, and
are then unpacked again without being downloaded again. What no pull came back for within a day is deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from common.errors import InvalidArgument
from executor_service.registry.source import Descriptor, ImageSource
from executor_service.storage.blob_download import Download, PartialBlob, blob_name, receive
from executor_service.storage.disk_room import has_room, require_room
from executor_service.storage.durable import private_directory
from executor_service.storage.keyed_locks import KeyedLocks
from executor_service.storage.refusals import corrupt_image
from executor_service.threads import finish

_SWEEP = 3600.0  # seconds between two looks for what is too old


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentLimits:
    """`reserve` bytes of the disk are left free; `keep` seconds for what nobody comes back for."""

    reserve: int = 64 << 20
    keep: float = 24 * 3600.0


class ContentStore:
    """Use as an async context manager."""

    def __init__(self, root: Path, *, limits: ContentLimits) -> None:
        self._partials = root / "content" / "partial"
        self._blobs = root / "content" / "blobs"
        self._limits = limits
        self._busy = KeyedLocks()
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await finish(self._open)
        self._sweeper = asyncio.create_task(self._sweep_forever(), name="content-sweep")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sweeper is not None
        self._sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await self._sweeper

    @asynccontextmanager
    async def opened(self, source: ImageSource, descriptor: Descriptor, watch: Download) -> AsyncIterator[BinaryIO]:
        """The whole blob, verified; downloaded unless it is here, from where an earlier download stopped.

        Raises InvalidArgument (CORRUPT_IMAGE) when its bytes have another digest or size, ResourceExhausted before the
        disk is full, and what the source raises.
        """
        name = blob_name(descriptor.digest)
        async with self._busy.hold(name):
            path = self._blobs / name
            if not await finish(path.exists):
                await self._download(source, descriptor, watch)
            with ExitStack() as stack:
                yield await finish(lambda: stack.enter_context(path.open("rb")))

    async def discard(self, digests: Iterable[str]) -> None:
        """Delete blobs and what is there of them."""
        for name in map(blob_name, set(digests)):
            async with self._busy.hold(name):
                await finish(lambda name=name: self._delete(name))  # type: ignore[misc]  # bound now

    async def require(self, descriptors: Iterable[Descriptor], *, beside: int) -> None:
        """What interrupted pulls of other layers have left goes, the oldest first, when the disk has no room for what
        is to be downloaded of these and `beside` bytes more. Raises ResourceExhausted when it has none then."""
        wanted = {blob_name(each.digest): each.size for each in descriptors}
        missing = await finish(lambda: sum(max(0, size - self._here(name)) for name, size in wanted.items()))
        size = missing + beside
        for name in await finish(self._by_age):
            if await finish(lambda: has_room(self._blobs, size + self._limits.reserve)):
                return
            if name not in wanted and not self._busy.is_held(name):
                async with self._busy.hold(name):
                    await finish(lambda name=name: self._delete(name))  # type: ignore[misc]  # bound now
        await finish(lambda: require_room(self._blobs, size + self._limits.reserve))

    def check_room(self) -> None:
        """Raises ResourceExhausted when the disk is about to be full; blocks."""
        require_room(self._blobs, self._limits.reserve)

    async def _download(self, source: ImageSource, descriptor: Descriptor, watch: Download) -> None:
        """Twice when the first time went on from something that was spoilt."""
        if not await self._published(source, descriptor, watch):
            await self._published(source, descriptor, watch)

    async def _published(self, source: ImageSource, descriptor: Descriptor, watch: Download) -> bool:
        """False when what an earlier download left was wrong; it is deleted then."""
        name = blob_name(descriptor.digest)
        async with self._partial(name, descriptor.digest.partition(":")[0]) as partial:
            resumed = partial.size > 0
            try:
                if partial.size <= descriptor.size:
                    await receive(source, descriptor, partial, watch)
            except InvalidArgument:
                await finish(lambda: self._delete(name))
                raise
            if partial.digest == descriptor.digest:
                await finish(lambda: partial.publish(self._blobs / name))
                return True
        await finish(lambda: self._delete(name))
        if not resumed:
            raise corrupt_image(
                f"layer {descriptor.digest}: the registry sent something with the digest {partial.digest}; "
                "push the image again"
            )
        return False

    @asynccontextmanager
    async def _partial(self, name: str, algorithm: str) -> AsyncIterator[PartialBlob]:
        path = self._partials / name
        with ExitStack() as stack:
            # Entered in the thread: a cancel meanwhile must not lose the descriptor.
            yield await finish(
                lambda: stack.enter_context(closing(PartialBlob.open(path, algorithm, self._limits.reserve)))
            )

    def _open(self) -> None:
        private_directory(self._partials.parent)
        private_directory(self._partials)
        private_directory(self._blobs)

    def _here(self, name: str) -> int:
        for path in (self._blobs / name, self._partials / name):
            with suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def _delete(self, name: str) -> None:
        for path in (self._blobs / name, self._partials / name):
            path.unlink(missing_ok=True)

    async def _sweep_forever(self) -> None:
        while True:
            for name in await finish(self._old):
                async with self._busy.hold(name):
                    # Somebody may have come back for it meanwhile.
                    if name in await finish(self._old):
                        await finish(lambda name=name: self._delete(name))  # type: ignore[misc]  # bound now
            await asyncio.sleep(_SWEEP)

    def _old(self) -> set[str]:
        before = time.time() - self._limits.keep
        return {path.name for path in self._all() if _modified(path) < before}

    def _by_age(self) -> list[str]:
        return [path.name for path in sorted(self._all(), key=_modified)]

    def _all(self) -> list[Path]:
        return [path for directory in (self._partials, self._blobs) for path in directory.iterdir()]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
