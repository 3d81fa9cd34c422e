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
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from common.errors import InvalidArgument, ResourceExhausted, Unavailable
from executor_service.registry.source import DIGEST, Descriptor, ImageSource, Retry
from executor_service.storage.durable import private_directory, sync_directory
from executor_service.storage.keyed_locks import KeyedLocks
from executor_service.storage.refusals import corrupt_image
from executor_service.threads import finish

_BATCH = 1 << 19  # bytes written by one visit to a thread
_SPARE_INODES = 1024
_SWEEP = 3600.0  # seconds between two looks for what is too old


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentLimits:
    """`reserve` bytes of the disk are left free; `keep` seconds for what nobody comes back for."""

    reserve: int = 64 << 20
    keep: float = 24 * 3600.0


class Download(Protocol):
    """Whoever watches one blob come in."""

    def received(self, total: int) -> None:
        """So many bytes are here."""

    def retried(self, retry: Retry) -> None:
        """The connection broke."""


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
        name = _name(descriptor.digest)
        async with self._busy.hold(name):
            path = self._blobs / name
            if not await finish(path.exists):
                await self._download(source, descriptor, watch)
            with ExitStack() as stack:
                yield await finish(lambda: stack.enter_context(path.open("rb")))

    async def discard(self, digests: Iterable[str]) -> None:
        """Delete blobs and what is there of them."""
        for name in map(_name, set(digests)):
            async with self._busy.hold(name):
                await finish(lambda name=name: self._delete(name))  # type: ignore[misc]  # bound now

    async def require(self, descriptors: Iterable[Descriptor], *, beside: int) -> None:
        """What interrupted pulls of other layers have left goes, the oldest first, when the disk has no room for what
        is to be downloaded of these and `beside` bytes more. Raises ResourceExhausted when it has none then."""
        wanted = {_name(each.digest): each.size for each in descriptors}
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
        name = _name(descriptor.digest)
        async with self._partial(name, descriptor.digest.partition(":")[0]) as partial:
            resumed = partial.size > 0
            try:
                if partial.size <= descriptor.size:
                    await _receive(source, descriptor, partial, watch)
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
    async def _partial(self, name: str, algorithm: str) -> AsyncIterator[_Partial]:
        path = self._partials / name
        with ExitStack() as stack:
            # Entered in the thread: a cancel meanwhile must not lose the descriptor.
            yield await finish(
                lambda: stack.enter_context(closing(_Partial.open(path, algorithm, self._limits.reserve)))
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


class _Partial:
    """A blob that grows, with the hash of what it has. Everything here blocks."""

    def __init__(self, path: Path, file: BinaryIO, algorithm: str, reserve: int) -> None:
        self._path = path
        self._file = file
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm, usedforsecurity=True)
        self._reserve = reserve
        self.size = 0

    @classmethod
    def open(cls, path: Path, algorithm: str, reserve: int) -> _Partial:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        partial = cls(path, os.fdopen(descriptor, "rb+", buffering=0), algorithm, reserve)
        buffer = bytearray(_BATCH)
        while count := os.preadv(descriptor, [buffer], partial.size):
            partial._take(memoryview(buffer)[:count])
        return partial

    @property
    def digest(self) -> str:
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    def append(self, data: bytes) -> None:
        require_room(self._path.parent, len(data) + self._reserve)
        rest = memoryview(data)
        while rest:
            count = os.write(self._file.fileno(), rest)
            self._take(rest[:count])
            rest = rest[count:]

    def publish(self, path: Path) -> None:
        os.fsync(self._file.fileno())
        self._path.rename(path)
        sync_directory(path.parent)
        sync_directory(self._path.parent)

    def close(self) -> None:
        self._file.close()

    def _take(self, data: memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)


async def _receive(source: ImageSource, descriptor: Descriptor, partial: _Partial, watch: Download) -> None:
    """What is missing of the blob; what came of it stays, however this ends."""
    if partial.size == descriptor.size:
        watch.received(partial.size)
        return
    batch = bytearray()

    async def write() -> None:
        data = bytes(batch)
        batch.clear()
        await finish(lambda: partial.append(data))
        watch.received(partial.size)

    async with source.blob(descriptor, partial.size, watch.retried) as chunks:
        watch.received(partial.size)  # not before: it may have to wait for its turn
        try:
            async for chunk in chunks:
                batch += chunk
                if partial.size + len(batch) > descriptor.size:
                    raise corrupt_image(
                        f"layer {descriptor.digest}: the registry sends more than {descriptor.size} bytes"
                    )
                if len(batch) >= _BATCH:
                    await write()
        finally:
            if batch:
                await write()
    if partial.size < descriptor.size:
        raise Unavailable(
            f"layer {descriptor.digest}: the registry sent {partial.size} of {descriptor.size} bytes; repeat the pull, "
            "it goes on from there",
            reason="REGISTRY_UNAVAILABLE",
        )


async def read_small(source: ImageSource, descriptor: Descriptor, *, limit: int) -> bytes:
    """A blob of at most `limit` bytes, verified. Raises InvalidArgument (CORRUPT_IMAGE)."""
    _name(descriptor.digest)
    if not 0 <= descriptor.size <= limit:
        raise corrupt_image(f"blob {descriptor.digest}: {descriptor.size} bytes; the limit is {limit}")
    data = bytearray()
    async with source.blob(descriptor) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) > descriptor.size:
                break
    algorithm = descriptor.digest.partition(":")[0]
    digest = f"{algorithm}:{hashlib.new(algorithm, data, usedforsecurity=True).hexdigest()}"
    if digest != descriptor.digest:
        raise corrupt_image(f"blob {descriptor.digest}: what the registry sent has the digest {digest}")
    return bytes(data)


def has_room(directory: Path, size: int) -> bool:
    """Blocks."""
    try:
        require_room(directory, size)
    except ResourceExhausted:
        return False
    return True


def require_room(directory: Path, size: int) -> None:
    """Raises ResourceExhausted when the file system has less than `size` bytes free, or next to no inodes; blocks."""
    facts = os.statvfs(directory)
    if (free := facts.f_bavail * facts.f_frsize) < size:
        raise ResourceExhausted(
            f"image: {size >> 20} MiB are needed below {str(directory)!r}, {free >> 20} MiB are free; remove images or "
            "containers, or enlarge the disk",
            reason="DISK_FULL",
        )
    if facts.f_files and facts.f_favail < _SPARE_INODES:  # some file systems have no fixed number, and say 0
        raise ResourceExhausted(
            f"image: the file system below {str(directory)!r} has {facts.f_favail} inodes left; remove images or "
            "containers, or make it anew with more of them",
            reason="DISK_FULL",
        )


def _name(digest: str) -> str:
    """A file's name. Raises InvalidArgument for what is no digest."""
    if not DIGEST.fullmatch(digest):
        raise corrupt_image(f"manifest: {digest[:100]!r} is not a digest, sha256:<64 hex> or sha512:<128 hex>")
    return digest.replace(":", "-")


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")
