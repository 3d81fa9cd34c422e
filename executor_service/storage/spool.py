"""Takes an archive off the network into an unnamed file, which no crash can leave behind."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, cast

from common.errors import ResourceExhausted
from executor_service.host_errors import host_errors
from executor_service.storage.refusals import corrupt_image
from executor_service.storage.streams import Window, decompressed
from executor_service.threads import finish

_BATCH = 1 << 20  # bytes written by one visit to a thread


@asynccontextmanager
async def spooled(
    archive: AsyncIterator[bytes], *, directory: Path, max_bytes: int, room: Callable[[], None] = lambda: None
) -> AsyncIterator[BinaryIO]:
    """The whole archive, an outer gzip or zstd removed, as a seekable file below `directory`.

    Raises ResourceExhausted beyond `max_bytes` (as it came, and unpacked), InvalidArgument when it is empty, and what
    `room`, called in a thread before each write, raises.
    """
    with host_errors("archive: it cannot be kept while it is read"):
        received = await finish(lambda: unnamed_file(directory))
        try:
            await _receive(archive, received, max_bytes, room)
            plain = await finish(lambda: _plain(received, directory, max_bytes, room))
        except BaseException:
            received.close()
            raise
    try:
        yield plain
    finally:
        plain.close()
        received.close()


def size_of(file: BinaryIO) -> int:
    return file.seek(0, 2)


async def _receive(archive: AsyncIterator[bytes], file: BinaryIO, max_bytes: int, room: Callable[[], None]) -> None:
    batch = bytearray()
    total = 0
    async for piece in archive:
        total += len(piece)
        if total > max_bytes:
            raise _too_large(max_bytes)
        batch += piece
        if len(batch) >= _BATCH:
            await finish(_writer(file, bytes(batch), room))
            batch.clear()
    await finish(_writer(file, bytes(batch), room))
    if not total:
        raise corrupt_image("archive: it is empty")


def _writer(file: BinaryIO, data: bytes, room: Callable[[], None]) -> Callable[[], None]:
    def write() -> None:
        room()
        file.write(data)

    return write


def _plain(received: BinaryIO, directory: Path, max_bytes: int, room: Callable[[], None]) -> BinaryIO:
    received.flush()
    window = Window(received, offset=0, size=size_of(received))
    if not window.is_packed:
        return received
    with decompressed(window) as stream:
        plain = unnamed_file(directory)
        try:
            while data := stream.read(_BATCH):
                if plain.tell() + len(data) > max_bytes:
                    raise _too_large(max_bytes)
                room()
                plain.write(data)
            plain.flush()
        except BaseException:
            plain.close()
            raise
        return plain


def unnamed_file(directory: Path) -> BinaryIO:
    """Blocks. Raises OSError."""
    return cast("BinaryIO", tempfile.TemporaryFile(dir=directory))


def _too_large(max_bytes: int) -> ResourceExhausted:
    return ResourceExhausted(
        f"archive: it is larger than {max_bytes} bytes, the limit of this node", reason="IMAGE_TOO_LARGE"
    )
