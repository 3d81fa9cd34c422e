"""One layer's tar into a directory: filter thread → pipe → GNU tar.

GNU tar sees only what `layer_filter` wrote, and runs without `-P`, so its own guard against absolute and `..` targets
(symlinks that are made last) stays on behind ours.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import structlog

from common.errors import Internal, ResourceExhausted
from executor_service.kernel import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from executor_service.run import Completed, run
from executor_service.storage.layer_filter import Count, Filtered, LayerFilter, uncounted
from executor_service.storage.layers import LayerFacts
from executor_service.storage.refusals import corrupt_image
from executor_service.storage.streams import HashingSource, Window, decompressed
from executor_service.storage.tar_reader import BLOCK
from executor_service.storage.tar_record import TarRecorder
from executor_service.threads import finish, to_the_end

_log = structlog.get_logger(__name__)

_PIPE_SIZE = 1 << 20  # bytes
_PIPE_BUFFER = 1 << 18  # bytes of one write
_SIDE_BY_SIDE = 2  # layers unpacked at a time
# What tar says of ENOSPC and EDQUOT; a file system that is just full takes part of a write first.
_FULL = ("No space left on device", "Disk quota exceeded", "Wrote only")
_OPAQUE = "trusted.overlay.opaque"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackLimits:
    """What one layer may cost: entries (its headers counted), bytes of its tar, seconds."""

    entries: int = 1_000_000
    bytes: int = 32 << 30
    seconds: float = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A layer within a spooled archive: tar, plain or packed. `digest` (`sha256:<hex>` or `sha512:<hex>`) is that of
    these bytes, when the archive states one."""

    file: BinaryIO
    offset: int
    size: int
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """`diff_id` is the digest of the tar, `facts` what the layer store keeps of it, `ended` whether it had its end
    mark."""

    diff_id: str
    facts: LayerFacts
    ended: bool


class _Stopped(Exception):
    """The work was cancelled; nobody sees this."""


class Unpacker:
    """A few threads that filter, beside the tar processes they feed. Use as an async context manager."""

    def __init__(self, *, limits: UnpackLimits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="layer-filter")
        self._turn = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False)

    async def unpack(
        self,
        blob: Blob,
        directory: Path,
        *,
        record: Path,
        room: Callable[[], None] = lambda: None,
        count: Count = uncounted,
    ) -> Unpacked:
        """Unpack `blob` into the empty `directory`, and write to `record` what `recorded_tar` needs to make its tar
        again. On any error both are to be thrown away. `room`, called in a thread every few bytes, and `count`, with
        what there is of the layer before it is written, stop it by raising.

        Raises InvalidArgument (CORRUPT_IMAGE), ResourceExhausted (a limit or the disk), Internal (tar failed).
        """
        async with self._turn:
            read_end, write_end = os.pipe()
            with suppress(OSError):  # a bigger pipe is only faster
                fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
            stop = threading.Event()
            tar = asyncio.create_task(self._tar(read_end, directory))
            filtering = asyncio.get_running_loop().run_in_executor(
                self._pool, self._filter, blob, write_end, record, stop, room, count
            )
            both: set[asyncio.Future[Any]] = {tar, filtering}
            try:
                await asyncio.wait(both)
            except asyncio.CancelledError:
                stop.set()
                tar.cancel()
                await to_the_end(asyncio.wait(both))
                filtering.exception()
                raise
        unpacked, filtered = _outcome(tar, filtering)
        await finish(lambda: _finish_directories(directory, filtered))
        return unpacked

    async def _tar(self, read_end: int, directory: Path) -> Completed:
        argv = ["tar", "--extract", "--file", f"/dev/fd/{read_end}", "--directory", str(directory)]
        argv += ["--numeric-owner", "--same-owner", "--same-permissions"]
        argv += ["--xattrs", "--xattrs-include=*", "--warning=no-timestamp"]
        argv += ["--read-full-records", f"--blocking-factor={_PIPE_BUFFER // BLOCK}"]
        try:
            return await run(argv, timeout=self._limits.seconds, pass_fds=(read_end,))
        finally:
            # Ours is the last read end once tar is gone: the filter's next write fails, and it ends.
            os.close(read_end)

    def _filter(
        self,
        blob: Blob,
        write_end: int,
        record: Path,
        stop: threading.Event,
        room: Callable[[], None],
        count: Count,
    ) -> tuple[Unpacked, Filtered]:
        def check() -> None:
            if stop.is_set():
                raise _Stopped
            room()

        algorithm, _, stated = (blob.digest or "").partition(":")
        window = Window(blob.file, offset=blob.offset, size=blob.size, algorithm=algorithm or None)
        with os.fdopen(write_end, "wb", buffering=_PIPE_BUFFER) as pipe:
            with decompressed(window) as stream, record.open("wb") as file:
                source = TarRecorder(HashingSource(stream, max_bytes=self._limits.bytes, check=check), file)
                filtered = LayerFilter(
                    source, pipe.write, max_entries=self._limits.entries, content=source.content, count=count
                ).run()
                diff_id = source.finish()
            pipe.flush()
            if blob.digest and (actual := window.digest()) != stated:
                raise corrupt_image(f"layer: the blob {blob.digest} has the digest {algorithm}:{actual}")
        if filtered.overwritten:
            self._record_whole(blob, record, check)
        unpacked = Unpacked(
            diff_id=diff_id,
            facts=LayerFacts(size=filtered.size, entries=filtered.entries, tar_size=source.size),
            ended=filtered.ended,
        )
        return unpacked, filtered

    def _record_whole(self, blob: Blob, record: Path, check: Callable[[], None]) -> None:
        """With the contents of all files: the unpacked layer does not have all of them."""
        window = Window(blob.file, offset=blob.offset, size=blob.size)
        with decompressed(window) as stream, record.open("wb") as file:
            TarRecorder(HashingSource(stream, max_bytes=self._limits.bytes, check=check), file).finish()


def _outcome(
    tar: asyncio.Task[Completed], filtering: asyncio.Future[tuple[Unpacked, Filtered]]
) -> tuple[Unpacked, Filtered]:
    """Why the filter stopped comes first; that it could not write to tar is explained by what tar said."""
    refusal = filtering.exception()
    if refusal is not None and not isinstance(refusal, BrokenPipeError):
        tar.exception()
        raise refusal
    try:
        done = tar.result()
    except TimeoutError as error:
        raise ResourceExhausted(
            "image: unpacking a layer took longer than this node allows", reason="TIMEOUT"
        ) from error
    if done.returncode != 0:
        if any(sign in done.message for sign in _FULL):
            raise ResourceExhausted("image: no space left to unpack a layer; free some and try again")
        _log.error("tar failed", error=done.message)
        raise Internal(f"image: a layer could not be unpacked: {done.message.splitlines()[0]}")
    if done.stderr:
        _log.warning("tar warned", message=done.message)
    return filtering.result()


def _finish_directories(directory: Path, filtered: Filtered) -> None:
    """Opaque marks, and the times tar changed by putting something into a directory later. Its own way to delay them
    (`--delay-directory-restore`) searches a list for every directory: 26 s for 60,000 of them instead of 2. No name
    passes through a symlink: the filter has seen to it, and nobody else writes here."""
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in filtered.opaque:
            flags = os.O_RDONLY | os.O_DIRECTORY
            descriptor = openat2(root, name or b".", flags=flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
            try:
                os.setxattr(descriptor, _OPAQUE, b"y")
            finally:
                os.close(descriptor)
        for name, (seconds, nanoseconds) in filtered.times.items():
            time = seconds * 1_000_000_000 + nanoseconds
            os.utime(name, ns=(time, time), dir_fd=root, follow_symlinks=False)
    finally:
        os.close(root)
