"""The images of this node: taken in, made, and given to a registry.

Their records are written last and removed first: what a crash leaves between, are layers nobody holds, and the next
start collects them.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from common.errors import FailedPrecondition, NotFound
from executor_service.host_errors import host_errors
from executor_service.registry.manifests import CONFIG, MANIFEST, write_manifest
from executor_service.registry.source import Descriptor, ImageSource, ImageTarget, Platform, Presence, read_from
from executor_service.storage.archive import Archive
from executor_service.storage.blob_download import read_small
from executor_service.storage.content import ContentStore
from executor_service.storage.image_archive import ArchivedImage, images_in
from executor_service.storage.image_caps import ImageCaps, ImageMeter
from executor_service.storage.image_config import (
    DIGEST,
    MAX_JSON,
    Step,
    config_of_commit,
    config_of_rootfs,
    host_architecture,
    parse_config,
    written_config,
)
from executor_service.storage.image_records import ImageRecords
from executor_service.storage.images import HERE, Image, ImageStore, PulledImage
from executor_service.storage.layer_filter import Count
from executor_service.storage.layer_progress import Report
from executor_service.storage.layer_pull import LayerPuller
from executor_service.storage.layer_push import LayerPusher
from executor_service.storage.layer_tar import LayerTar
from executor_service.storage.layers import TAR_RECORD, LayerStore, layer_name
from executor_service.storage.refusals import corrupt_image
from executor_service.storage.shared_progress import SharedProgress
from executor_service.storage.spool import size_of, spooled
from executor_service.storage.unpack import Blob, Unpacked, Unpacker
from executor_service.threads import finish

_RESOLVE = 120.0  # seconds for a registry to say what a reference means


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """`archive_bytes` that an archive may have, both as it came and with its outer compression removed."""

    archive_bytes: int = 32 << 30


class LocalImages:
    """`ImageStore` on records and the layer store. Use as an async context manager."""

    def __init__(
        self,
        root: Path,
        *,
        layers: LayerStore,
        unpacker: Unpacker,
        content: ContentStore,
        puller: LayerPuller,
        limits: ArchiveLimits,
        caps: ImageCaps,
    ) -> None:
        self._records = ImageRecords(root, layers=layers)
        self._staging = root / "staging"
        self._layers = layers
        self._unpacker = unpacker
        self._content = content
        self._puller = puller
        self._limits = limits
        self._caps = caps
        self._architecture = host_architecture()
        self._takings = itertools.count()
        self._progress = SharedProgress()
        self._pusher = LayerPusher(open_tar=self.layer_tar, directory=self._staging)

    async def __aenter__(self) -> Self:
        """Reads the records and holds their layers."""
        await finish(self._records.open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end: images stay."""

    async def load(self, archive: AsyncIterator[bytes], platform: Platform = HERE) -> Sequence[Image]:
        with host_errors("image: it cannot be stored"):
            async with self._spooled(archive) as file, self._taking() as owner:
                found = await finish(lambda: images_in(Archive(file), platform=self._whole(platform)))
                needed = {diff_id for image in found for diff_id in image.config.diff_ids}
                self._layers.hold(owner, map(layer_name, needed))
                for image in found:
                    await self._take_layers(image)
                return await self._records.write([self._image(image) for image in found])

    async def pull(
        self, source: ImageSource, reference: str, platform: Platform, *, name: str, report: Report
    ) -> PulledImage:
        platform = self._whole(platform)
        manifest = await source.resolve(reference, platform, time.monotonic() + _RESOLVE)
        stated = await read_small(source, manifest.config, limit=MAX_JSON)
        config = parse_config(stated, architecture=platform.architecture)
        if len(config.diff_ids) != len(manifest.layers):
            raise corrupt_image(
                f"image {config.id}: its manifest has {len(manifest.layers)} layers, its config {len(config.diff_ids)}"
            )
        with host_errors("image: it cannot be stored"):
            async with self._taking() as owner:
                self._layers.hold(owner, map(layer_name, config.diff_ids))
                wanted = dict(zip(config.diff_ids, manifest.layers, strict=True))
                with self._progress.among((layer.digest for layer in manifest.layers), report) as shared:
                    await self._puller.pull(source, wanted, shared)
                found = ArchivedImage(config=config, layers=(), names=(name,) if name else ())
                (image,) = await self._records.write([self._image(found)])
            await self._content.discard(layer.digest for layer in manifest.layers)
        return PulledImage(image=image, digest=manifest.descriptor.digest, index_digest=manifest.index_digest)

    async def import_rootfs(
        self, archive: AsyncIterator[bytes], *, config: Mapping[str, object], platform: Platform = HERE, step: Step
    ) -> Image:
        whole = self._whole(platform)
        return await self._on_top(
            (), archive, lambda diff_id: config_of_rootfs(config, diff_id=diff_id, platform=whole, step=step)
        )

    async def commit(
        self, base_id: str, archive: AsyncIterator[bytes], *, config: Mapping[str, object], step: Step
    ) -> Image:
        base = await self.get(base_id)
        return await self._on_top(
            base.layers, archive, lambda diff_id: config_of_commit(base.config, config, diff_id=diff_id, step=step)
        )

    async def _on_top(
        self, layers: Sequence[str], archive: AsyncIterator[bytes], describe: Callable[[str], bytes]
    ) -> Image:
        """The image of these layers and the one that `archive` is the tar of, whose diff id `describe` gets."""
        with host_errors("image: it cannot be stored"):
            async with self._spooled(archive) as file, self._taking() as owner, self._layers.staged() as staged:
                self._layers.hold(owner, map(layer_name, layers))
                meter = ImageMeter(self._caps)
                for diff_id in layers:
                    self._count(meter, diff_id)
                blob = Blob(file=file, offset=0, size=size_of(file))
                unpacked = await self._unpack(blob, staged, partial(meter.count, "new"))
                if not unpacked.ended:
                    raise corrupt_image("archive: the root filesystem's tar has no end mark; it was cut short")
                name = layer_name(unpacked.diff_id)
                self._layers.hold(owner, [name])
                async with self._layers.making(name) as missing:
                    if missing:
                        await self._layers.publish(staged, name, unpacked.facts)
                parsed = written_config(describe(unpacked.diff_id))
                made = ArchivedImage(config=parsed, layers=(blob,), names=())
                (image,) = await self._records.write([self._image(made)])
                return image

    async def get(self, image_id: str) -> Image:
        return self._records.get(image_id)

    async def list(self) -> Sequence[Image]:
        return self._records.list()

    async def remove(self, image_id: str) -> None:
        if not DIGEST.fullmatch(image_id):
            return
        await self._records.remove(image_id)
        await self._layers.collect()

    async def push(self, target: ImageTarget, image_id: str, tag: str, *, report: Report) -> str:
        image = await self.get(image_id)
        with host_errors("image: it cannot be compressed"):
            layers = await self._pusher.push(target, image.layers, report)
        config = Descriptor(media_type=CONFIG, digest=image.id, size=len(image.config))
        if await target.find(config.digest) is Presence.MISSING:
            await target.upload(config, read_from(image.config))
        manifest = write_manifest(config, layers)
        await target.put_manifest(tag, MANIFEST, manifest)
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    @asynccontextmanager
    async def layer_tar(self, diff_id: str) -> AsyncIterator[LayerTar]:
        name = layer_name(diff_id)
        async with self._taking() as owner:
            self._layers.hold(owner, [name])
            if name not in self._layers.names():
                raise NotFound(f"layer {diff_id!r}: not on this node", resource_type="layer", resource_name=diff_id)
            if (size := self._layers.tar_size(name)) is None:
                raise FailedPrecondition(
                    f"layer {diff_id}: it was unpacked by an executor that did not keep what makes its tar again; "
                    "remove every image that has it, and pull or load them again",
                    resource_type="layer",
                    resource_name=diff_id,
                    reason="LAYER_NOT_RECORDED",
                )
            yield LayerTar(diff_id=diff_id, size=size, record=self._layers.record(name), tree=self._layers.tree(name))
        await self._layers.collect()  # its image may have been removed meanwhile

    async def disk_usage(self) -> int:
        held = {layer_name(diff_id) for image in self._records.list() for diff_id in image.layers}
        return sum(map(self._layers.size, held & self._layers.names()))

    def _whole(self, platform: Platform) -> Platform:
        return replace(platform, architecture=platform.architecture or self._architecture)

    @asynccontextmanager
    async def _spooled(self, archive: AsyncIterator[bytes]) -> AsyncIterator[BinaryIO]:
        async with spooled(
            archive,
            directory=self._staging,
            max_bytes=self._limits.archive_bytes,
            room=self._content.check_room,
        ) as file:
            yield file

    @asynccontextmanager
    async def _taking(self) -> AsyncIterator[str]:
        """A holder of layers for as long as an archive is taken in; what it alone held is dropped at the end."""
        owner = f"taking {next(self._takings)}"
        try:
            yield owner
        except BaseException:
            self._layers.release(owner)
            await self._layers.collect()
            raise
        self._layers.release(owner)

    async def _take_layers(self, image: ArchivedImage) -> None:
        meter = ImageMeter(self._caps)
        for diff_id, blob in zip(image.config.diff_ids, image.layers, strict=True):
            name = layer_name(diff_id)
            async with self._layers.making(name) as missing:
                if missing:
                    await self._make_layer(diff_id, blob, meter)
            self._count(meter, diff_id)

    async def _make_layer(self, diff_id: str, blob: Blob, meter: ImageMeter) -> None:
        async with self._layers.staged() as staged:
            unpacked = await self._unpack(blob, staged, partial(meter.count, diff_id))
            if unpacked.diff_id != diff_id:
                raise corrupt_image(f"layer: its diff id is {unpacked.diff_id}, the config says {diff_id}")
            await self._layers.publish(staged, layer_name(diff_id), unpacked.facts)

    def _count(self, meter: ImageMeter, diff_id: str) -> None:
        """Of a layer that is here."""
        name = layer_name(diff_id)
        meter.count(diff_id, self._layers.size(name), self._layers.entries(name))

    async def _unpack(self, blob: Blob, staged: Path, count: Count) -> Unpacked:
        return await self._unpacker.unpack(
            blob, staged / "fs", record=staged / TAR_RECORD, room=self._content.check_room, count=count
        )

    def _image(self, image: ArchivedImage) -> Image:
        sizes = self._layers.sizes(map(layer_name, image.config.diff_ids))
        return Image(
            id=image.config.id,
            config=image.config.data,
            layers=image.config.diff_ids,
            size=sum(sizes),
            created_at=image.config.created,
            names=image.names,
            layer_sizes=sizes,
        )


_: type[ImageStore] = LocalImages
