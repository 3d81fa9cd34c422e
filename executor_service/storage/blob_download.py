"""Blobs of a registry as they come in, verified: into a file from where a broken download goes on, or into memory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Protocol

from common.errors import Unavailable
from executor_service.registry.source import DIGEST, Descriptor, ImageSource, Retry
from executor_service.storage.disk_room import require_room
from executor_service.storage.durable import sync_directory
from executor_service.storage.refusals import corrupt_image
from executor_service.threads import finish

_BATCH = 1 << 19  # bytes written by one visit to a thread


class Download(Protocol):
    """Whoever watches one blob come in."""

    def received(self, total: int) -> None:
        """So many bytes are here."""

    def retried(self, retry: Retry) -> None:
        """The connection broke."""


class PartialBlob:
    """A blob that grows, with the hash of what it has; `reserve` bytes of the disk are left free. Everything here
    blocks."""

    def __init__(self, path: Path, file: BinaryIO, algorithm: str, reserve: int) -> None:
        self._path = path
        self._file = file
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm, usedforsecurity=True)
        self._reserve = reserve
        self.size = 0

    @classmethod
    def open(cls, path: Path, algorithm: str, reserve: int) -> PartialBlob:
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


async def receive(source: ImageSource, descriptor: Descriptor, partial: PartialBlob, watch: Download) -> None:
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
    blob_name(descriptor.digest)
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


def blob_name(digest: str) -> str:
    """A file's name. Raises InvalidArgument for what is no digest."""
    if not DIGEST.fullmatch(digest):
        raise corrupt_image(f"manifest: {digest[:100]!r} is not a digest, sha256:<64 hex> or sha512:<128 hex>")
    return digest.replace(":", "-")
