"""Layers out of a registry: downloaded side by side, each unpacked while others are still coming."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from common.errors import InvalidArgument, ResourceExhausted
from executor_service.registry.source import Descriptor, ImageSource, Retry
from executor_service.storage.content import ContentStore
from executor_service.storage.image_caps import ImageCaps, ImageMeter, image_too_large
from executor_service.storage.layer_progress import LayerPhase, LayerProgress, Report
from executor_service.storage.layers import TAR_RECORD, LayerStore, layer_name
from executor_service.storage.refusals import corrupt_image
from executor_service.storage.unpack import Blob, Unpacker
from executor_service.tasks import together

_KEPT = frozenset({"DISK_FULL", ResourceExhausted.default_reason})  # a blob is still good when there was no room for it


@dataclass(frozen=True, slots=True, kw_only=True)
class PullLimits:
    """Bytes of one compressed layer, and of all of an image."""

    layer: int = 16 << 30
    image: int = 32 << 30


class LayerPuller:
    """Brings layers into the layer store, each once, whoever wants it."""

    def __init__(
        self, *, layers: LayerStore, unpacker: Unpacker, content: ContentStore, limits: PullLimits, caps: ImageCaps
    ) -> None:
        self._layers = layers
        self._unpacker = unpacker
        self._content = content
        self._limits = limits
        self._caps = caps

    async def pull(self, source: ImageSource, wanted: Mapping[str, Descriptor], report: Report) -> None:
        """All layers of one image, by diff id; the caller holds them. The first failure stops the others.

        Raises InvalidArgument (CORRUPT_IMAGE), ResourceExhausted, and what the source raises.
        """
        self._check(wanted)
        here = self._layers.names()
        missing = [descriptor for diff_id, descriptor in wanted.items() if layer_name(diff_id) not in here]
        # No layer is smaller unpacked than it was compressed; by how much it is larger, nobody says beforehand.
        unpacked = sum(descriptor.size for descriptor in missing)
        await self._content.require(missing, beside=unpacked)

        meter = ImageMeter(self._caps)

        async def take(diff_id: str, descriptor: Descriptor) -> None:
            await self._take(source, diff_id, descriptor, meter, report)
            name = layer_name(diff_id)
            meter.count(diff_id, self._layers.size(name), self._layers.entries(name))

        try:
            await together(*(take(diff_id, each) for diff_id, each in wanted.items()))
        except ResourceExhausted as error:
            if error.reason not in _KEPT:
                # No later pull of this image comes further: what has come of it is of no use.
                await self._content.discard(each.digest for each in wanted.values())
            raise

    def _check(self, wanted: Mapping[str, Descriptor]) -> None:
        for descriptor in wanted.values():
            if descriptor.size < 0:
                raise corrupt_image(f"manifest: the layer {descriptor.digest} has a size of {descriptor.size} bytes")
            if descriptor.size > self._limits.layer:
                what = f"its layer {descriptor.digest} has {descriptor.size} bytes"
                raise image_too_large(what, f"{self._limits.layer} for one layer")
        if (size := sum(descriptor.size for descriptor in wanted.values())) > self._limits.image:
            raise image_too_large(f"it has {size} bytes", str(self._limits.image))

    async def _take(
        self, source: ImageSource, diff_id: str, descriptor: Descriptor, meter: ImageMeter, report: Report
    ) -> None:
        name = layer_name(diff_id)
        watch = _Watch(descriptor, report)
        async with self._layers.making(name) as missing:
            if not missing:
                watch.enter(LayerPhase.EXISTS)
                return
            try:
                await self._make(source, diff_id, descriptor, meter, watch)
            except (InvalidArgument, ResourceExhausted) as error:
                if error.reason not in _KEPT:
                    await self._content.discard([descriptor.digest])
                raise
        watch.enter(LayerPhase.DONE)

    async def _make(
        self, source: ImageSource, diff_id: str, descriptor: Descriptor, meter: ImageMeter, watch: _Watch
    ) -> None:
        async with self._content.opened(source, descriptor, watch) as file, self._layers.staged() as staged:
            watch.enter(LayerPhase.UNPACKING)
            blob = Blob(file=file, offset=0, size=descriptor.size)
            unpacked = await self._unpacker.unpack(
                blob,
                staged / "fs",
                record=staged / TAR_RECORD,
                room=self._content.check_room,
                count=partial(meter.count, diff_id),
            )
            if unpacked.diff_id != diff_id:
                raise corrupt_image(
                    f"layer {descriptor.digest}: its diff id is {unpacked.diff_id}, the image's config says {diff_id}"
                )
            await self._layers.publish(staged, layer_name(diff_id), unpacked.facts)


class _Watch:
    """Turns what happens to one layer into its progress."""

    def __init__(self, descriptor: Descriptor, report: Report) -> None:
        self._report = report
        self._now = LayerProgress(
            digest=descriptor.digest, phase=LayerPhase.WAITING, done=0, total=descriptor.size, retries=0
        )
        report(self._now)

    def received(self, total: int) -> None:
        self._say(replace(self._now, phase=LayerPhase.DOWNLOADING, done=total))

    def retried(self, retry: Retry) -> None:
        self._say(replace(self._now, retries=self._now.retries + 1))

    def enter(self, phase: LayerPhase) -> None:
        self._say(replace(self._now, phase=phase, done=self._now.total))

    def _say(self, progress: LayerProgress) -> None:
        self._now = progress
        self._report(progress)
