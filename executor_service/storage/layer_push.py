"""Layers to a registry: what it does not have is compressed into an unnamed file, and sent from there."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from isal import isal_zlib

from executor_service.registry.manifests import LAYER
from executor_service.registry.source import Descriptor, ImageTarget, Presence, Retry
from executor_service.storage.layer_progress import LayerPhase, LayerProgress, Report
from executor_service.storage.layer_tar import LayerTar
from executor_service.storage.spool import unnamed_file
from executor_service.tasks import together
from executor_service.threads import finish

_TOGETHER = 3  # layers of one push: what a registry takes slowly delays no push to another
_LEVEL = 2  # of isal's 0 to 3
_GZIP = 31  # wbits: the largest window, with gzip's header, which names no file and no time
_MOST_KNOWN = 4096  # layers
_PRESENT = {Presence.EXISTS: LayerPhase.EXISTS, Presence.MOUNTED: LayerPhase.MOUNTED}

OpenTar = Callable[[str], AbstractAsyncContextManager[LayerTar]]


class LayerPusher:
    """Of one node. Remembers what layers are when compressed, of the last ones: what a registry has is not compressed
    again."""

    def __init__(self, *, open_tar: OpenTar, directory: Path) -> None:
        self._open_tar = open_tar
        self._directory = directory
        self._known: dict[str, Descriptor] = {}  # the one that was pushed last is the last

    async def push(self, target: ImageTarget, diff_ids: Sequence[str], report: Report) -> list[Descriptor]:
        """The layers as the target has them, in their order. The first failure stops the others. Raises NotFound,
        FailedPrecondition, DataLoss, ResourceExhausted, and what the target raises."""
        layers: dict[str, Descriptor] = {}
        turns = asyncio.Semaphore(_TOGETHER)

        async def give(diff_id: str) -> None:
            watch = _Watch(diff_id, report)
            async with turns:
                layers[diff_id] = await self._give(target, diff_id, watch)

        await together(*map(give, dict.fromkeys(diff_ids)))
        return [layers[diff_id] for diff_id in diff_ids]

    async def _give(self, target: ImageTarget, diff_id: str, watch: _Watch) -> Descriptor:
        if (known := self._known.get(diff_id)) is not None:
            self._remember(diff_id, known)
        if known is not None and (presence := await target.find(known.digest)) is not Presence.MISSING:
            watch.enter(_PRESENT[presence], known.size)
            return known
        async with self._open_tar(diff_id) as tar:
            watch.enter(LayerPhase.PACKING, tar.size)
            async with self._packed(tar) as (descriptor, file):
                self._remember(diff_id, descriptor)
                # Not asked twice of the same.
                if descriptor != known and (found := await target.find(descriptor.digest)) is not Presence.MISSING:
                    watch.enter(_PRESENT[found], descriptor.size)
                    return descriptor
                watch.enter(LayerPhase.UPLOADING, descriptor.size)

                async def read(offset: int, size: int) -> bytes:
                    return await finish(lambda: os.pread(file.fileno(), size, offset))

                await target.upload(descriptor, read, watch.sent, watch.retried)
        watch.enter(LayerPhase.DONE, descriptor.size)
        return descriptor

    def _remember(self, diff_id: str, descriptor: Descriptor) -> None:
        self._known.pop(diff_id, None)
        self._known[diff_id] = descriptor
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    @asynccontextmanager
    async def _packed(self, tar: LayerTar) -> AsyncIterator[tuple[Descriptor, BinaryIO]]:
        with await finish(lambda: unnamed_file(self._directory)) as file:
            packer = _Packer(file)
            async with aclosing(tar.chunks()) as chunks:
                async for chunk in chunks:
                    await finish(lambda chunk=chunk: packer.take(chunk))  # type: ignore[misc]  # a default that binds
            yield await finish(packer.end), file


class _Packer:
    """Its methods block. Equal tars are equal compressed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP)
        self._digest = hashlib.sha256()
        self._size = 0

    def take(self, chunk: bytes) -> None:
        self._write(self._stream.compress(chunk))

    def end(self) -> Descriptor:
        self._write(self._stream.flush())
        self._file.flush()
        return Descriptor(media_type=LAYER, digest=f"sha256:{self._digest.hexdigest()}", size=self._size)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)


class _Watch:
    """Turns what happens to one layer into its progress."""

    def __init__(self, diff_id: str, report: Report) -> None:
        self._report = report
        self._now = LayerProgress(digest=diff_id, phase=LayerPhase.WAITING, done=0, total=0)
        report(self._now)

    def enter(self, phase: LayerPhase, total: int) -> None:
        moving = phase in (LayerPhase.PACKING, LayerPhase.UPLOADING)
        self._say(replace(self._now, phase=phase, done=0 if moving else total, total=total))

    def sent(self, total: int) -> None:
        self._say(replace(self._now, done=total))

    def retried(self, retry: Retry) -> None:
        self._say(replace(self._now, retries=self._now.retries + 1))

    def _say(self, progress: LayerProgress) -> None:
        self._now = progress
        self._report(progress)
