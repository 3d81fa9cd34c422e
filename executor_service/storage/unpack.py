"""One layer's tar into a directory: filter process → pipe → GNU tar.

GNU tar sees only what `layer_filter` wrote, and runs without `-P`, so its own guard against absolute and `..` targets
(symlinks that are made last) stays on behind ours.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, cast

import structlog

from common.errors import Internal, ResourceExhausted
from executor_service.run import Completed, Descriptor, run
from executor_service.storage.filter_process import FilterProcess, filter_process
from executor_service.storage.filter_program import PIPE_BUFFER, Order, Passed
from executor_service.storage.layer_filter import Count, uncounted
from executor_service.storage.layers import LayerFacts
from executor_service.storage.refusals import took_too_long
from executor_service.storage.tar_reader import BLOCK
from executor_service.threads import finish, to_the_end

_log = structlog.get_logger(__name__)

_PIPE_SIZE = 1 << 20  # bytes
_SIDE_BY_SIDE = 2  # layers unpacked at a time
# What tar says of ENOSPC and EDQUOT; a file system that is just full takes part of a write first.
_FULL = ("No space left on device", "Disk quota exceeded", "Wrote only")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpackLimits:
    """What one layer may cost: entries (its headers counted), bytes of its tar, seconds, and bytes of memory, of which
    a million entries and the largest window of a compression take less."""

    entries: int = 1_000_000
    bytes: int = 32 << 30
    seconds: float = 1800.0
    memory: int = 1 << 30


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


class Unpacker:
    """Unpacks a few layers at a time, each by a filter process and a tar. Use as an async context manager."""

    def __init__(self, *, limits: UnpackLimits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="layer")
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
        what there is of the layer before more than a little of it is written, stop it by raising.

        Raises InvalidArgument (CORRUPT_IMAGE), ResourceExhausted (a limit or the disk), Internal (tar or the filter
        failed).
        """
        async with self._turn:
            passed = await self._extract(blob, directory, record, room, count)
            if passed.overwritten:
                # The unpacked layer does not have the contents of all files.
                async with self._filter(replace(blob, digest=None), record) as whole:
                    await whole.recorded(room)
        facts = LayerFacts(size=passed.size, entries=passed.entries, tar_size=passed.tar_size)
        return Unpacked(diff_id=passed.diff_id, facts=facts, ended=passed.ended)

    async def _extract(
        self, blob: Blob, directory: Path, record: Path, room: Callable[[], None], count: Count
    ) -> Passed:
        with _pipe() as (read_end, write_end):
            async with self._filter(blob, record, write_end) as process:
                tar = asyncio.create_task(self._tar(read_end, directory))
                filtering = asyncio.create_task(process.passed(room, count))
                both: set[asyncio.Future[Any]] = {tar, filtering}
                try:
                    await asyncio.wait(both)
                except asyncio.CancelledError:
                    for each in both:
                        each.cancel()
                    await to_the_end(asyncio.gather(*both, return_exceptions=True))
                    raise
                passed = _outcome(tar, filtering)
                await process.finish_directories(directory)
                return passed

    @asynccontextmanager
    async def _filter(self, blob: Blob, record: Path, tar: Descriptor | None = None) -> AsyncIterator[FilterProcess]:
        order = Order(
            offset=blob.offset,
            size=blob.size,
            digest=blob.digest,
            max_bytes=self._limits.bytes,
            max_entries=self._limits.entries,
            memory=self._limits.memory,
        )
        with ExitStack() as files:
            # The archive anew: to be read, and nothing else.
            again = Path(f"/proc/self/fd/{blob.file.fileno()}")
            archive = await finish(lambda: files.enter_context(_opened(again, "rb")))
            recorded = await finish(lambda: files.enter_context(_opened(record, "wb")))
            async with filter_process(
                order, archive=archive, record=recorded, tar=tar, timeout=self._limits.seconds, pool=self._pool
            ) as process:
                yield process

    async def _tar(self, read_end: Descriptor, directory: Path) -> Completed:
        argv = ["tar", "--extract", "--file", f"/dev/fd/{read_end.fileno()}", "--directory", str(directory)]
        argv += ["--numeric-owner", "--same-owner", "--same-permissions"]
        argv += ["--xattrs", "--xattrs-include=*", "--warning=no-timestamp"]
        argv += ["--read-full-records", f"--blocking-factor={PIPE_BUFFER // BLOCK}"]
        # tar's is the last read end: when it is gone, the filter's next write fails.
        return await run(argv, timeout=self._limits.seconds, give=[read_end])


@contextmanager
def _pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    read_end, write_end = os.pipe()
    with suppress(OSError):  # a bigger one is only faster
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    with os.fdopen(read_end, "rb", buffering=0) as reader, os.fdopen(write_end, "wb", buffering=0) as writer:
        yield reader, writer


def _opened(path: Path, mode: Literal["rb", "wb"]) -> BinaryIO:
    return cast("BinaryIO", path.open(mode, buffering=0))


def _outcome(tar: asyncio.Task[Completed], filtering: asyncio.Task[Passed]) -> Passed:
    """Why the filter stopped comes first; that it could not write to tar is explained by what tar said."""
    tar.exception()
    with suppress(BrokenPipeError):
        filtering.result()
    try:
        done = tar.result()
    except TimeoutError as error:
        raise took_too_long() from error
    if done.returncode != 0:
        if any(sign in done.message for sign in _FULL):
            raise ResourceExhausted("image: no space left to unpack a layer; free some and try again")
        _log.error("tar failed", error=done.message)
        raise Internal(f"image: a layer could not be unpacked: {done.message.splitlines()[0]}")
    if done.stderr:
        _log.warning("tar warned", message=done.message)
    return filtering.result()
