"""The images of this node: one JSON record each, over layers that are shared.

A record holds the image's config as text, so its id proves the record whole. Records are written last and removed
first: what a crash leaves between, are layers nobody holds, and the next start collects them.
"""

from __future__ import annotations

import asyncio
import builtins
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import structlog

from common.errors import FailedPrecondition, NotFound
from executor_service.host_errors import host_errors
from executor_service.registry.manifests import CONFIG, MANIFEST, write_manifest
from executor_service.registry.source import Descriptor, ImageSource, ImageTarget, Platform, Presence, read_from
from executor_service.storage.archive import Archive
from executor_service.storage.blob_download import read_small
from executor_service.storage.content import ContentStore
from executor_service.storage.durable import private_directory, sync_directory, write_durably
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
from executor_service.storage.image_record import image_from_json, image_to_json
from executor_service.storage.images import HERE, Image, ImageStore, PulledImage
from executor_service.storage.init_layer import init_layer_name
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

_log = structlog.get_logger(__name__)

_RESOLVE = 120.0  # seconds for a registry to say what a reference means


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """`archive_bytes` that an archive may have, both as it came and with its outer compression removed."""

    archive_bytes: int = 32 << 30


class LocalImages:
    """`ImageStore` on directories: `<root>/images/<hex>.json` and the layer store. Use as an async context manager."""

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
        architecture: str | None = None,
    ) -> None:
        self._records = root / "images"
        self._staging = root / "staging"
        self._layers = layers
        self._unpacker = unpacker
        self._content = content
        self._puller = puller
        self._limits = limits
        self._caps = caps
        self._architecture = architecture or host_architecture()
        self._images: dict[str, Image] = {}
        self._takings = itertools.count()
        self._writing = asyncio.Lock()
        self._progress = SharedProgress()
        self._pusher = LayerPusher(open_tar=self.layer_tar, directory=self._staging)

    async def __aenter__(self) -> Self:
        """Reads the records and holds their layers."""
        await finish(self._open)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._images.clear()

    async def load(self, archive: AsyncIterator[bytes], platform: Platform = HERE) -> Sequence[Image]:
        with host_errors("image: it cannot be stored"):
            async with self._spooled(archive) as file, self._taking() as owner:
                found = await finish(lambda: images_in(Archive(file), platform=self._whole(platform)))
                needed = {diff_id for image in found for diff_id in image.config.diff_ids}
                self._layers.hold(owner, map(layer_name, needed))
                for image in found:
                    await self._take_layers(image)
                return await self._record([self._image(image) for image in found])

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
                (image,) = await self._record([self._image(found)])
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
                (image,) = await self._record([self._image(ArchivedImage(config=parsed, layers=(blob,), names=()))])
                return image

    async def get(self, image_id: str) -> Image:
        try:
            return self._images[image_id]
        except KeyError:
            raise NotFound(
                f"image {image_id!r}: not on this node", resource_type="image", resource_name=image_id
            ) from None

    async def list(self) -> Sequence[Image]:
        return [self._images[image_id] for image_id in sorted(self._images)]

    async def remove(self, image_id: str) -> None:
        if not DIGEST.fullmatch(image_id):
            return
        async with self._writing:
            await finish(lambda: self._delete_record(image_id))
            self._images.pop(image_id, None)
            self._layers.release(image_id)
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
        held = {layer_name(diff_id) for image in self._images.values() for diff_id in image.layers}
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
        return Image(
            id=image.config.id,
            config=image.config.data,
            layers=image.config.diff_ids,
            size=sum(self._layer_sizes(image.config.diff_ids)),
            created_at=image.config.created,
            names=image.names,
            layer_sizes=self._layer_sizes(image.config.diff_ids),
        )

    def _layer_sizes(self, diff_ids: Sequence[str]) -> tuple[int, ...]:
        return tuple(self._layers.size(layer_name(diff_id)) for diff_id in diff_ids)

    async def _record(self, images: Sequence[Image]) -> builtins.list[Image]:
        """Write all records or none; the images as given, with the names of this archive alone."""
        async with self._writing, AsyncExitStack() as undo:
            for image in images:
                before = self._images.get(image.id)
                names = tuple(dict.fromkeys((before.names if before else ()) + image.names))
                kept = replace(image, names=names)
                if kept != before:
                    undo.push_async_callback(self._restore, image.id, before)
                    await self._keep(kept)
            undo.pop_all()
        return [*images]

    async def _keep(self, image: Image) -> None:
        self._hold(image)
        await finish(lambda: write_durably(self._path(image.id), image_to_json(image)))
        self._images[image.id] = image

    async def _restore(self, image_id: str, before: Image | None) -> None:
        if before is not None:
            await self._keep(before)
            return
        await finish(lambda: self._delete_record(image_id))
        self._images.pop(image_id, None)
        self._layers.release(image_id)

    def _hold(self, image: Image) -> None:
        self._layers.hold(image.id, [*map(layer_name, image.layers), init_layer_name(image.layers)])

    def _path(self, image_id: str) -> Path:
        return self._records / f"{image_id.removeprefix('sha256:')}.json"

    def _delete_record(self, image_id: str) -> None:
        self._path(image_id).unlink(missing_ok=True)
        sync_directory(self._records)

    def _open(self) -> None:
        private_directory(self._records)
        here = self._layers.names()
        for path in self._records.iterdir():
            if path.suffix != ".json" or path.name.startswith("."):
                path.unlink()  # a write that was cut short
                continue
            image_id = f"sha256:{path.stem}"
            try:
                image = image_from_json(image_id, path.read_bytes())
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.error("broken image record skipped", path=str(path), error=str(error))
                self._layers.hold_all(image_id)
                continue
            self._hold(image)
            if missing := sorted(set(map(layer_name, image.layers)) - here):
                _log.error("image without all of its layers skipped; load it again", image=image.id, missing=missing)
                continue
            self._images[image.id] = replace(image, layer_sizes=self._layer_sizes(image.layers))


_: type[ImageStore] = LocalImages
