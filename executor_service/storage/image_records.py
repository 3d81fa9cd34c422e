"""The records of this node's images, `<root>/images/<hex>.json`: in memory as on disk, each holding its layers.

A record has the image's config as text, so its id proves the record whole.
"""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import structlog

from common.errors import NotFound
from executor_service.storage.durable import private_directory, sync_directory, write_durably
from executor_service.storage.image_record import image_from_json, image_to_json
from executor_service.storage.images import Image
from executor_service.storage.init_layer import init_layer_name
from executor_service.storage.layers import LayerStore, layer_name
from executor_service.threads import finish

_log = structlog.get_logger(__name__)


class ImageRecords:
    """`open` comes first."""

    def __init__(self, root: Path, *, layers: LayerStore) -> None:
        self._directory = root / "images"
        self._layers = layers
        self._images: dict[str, Image] = {}
        self._writing = asyncio.Lock()

    def open(self) -> None:
        """Read what is there, and hold its layers. Blocks."""
        private_directory(self._directory)
        here = self._layers.names()
        for path in self._directory.iterdir():
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
            names = [*map(layer_name, image.layers)]
            if missing := sorted(set(names) - here):
                _log.error("image without all of its layers skipped; load it again", image=image.id, missing=missing)
                continue
            self._images[image.id] = replace(image, layer_sizes=self._layers.sizes(names))

    def get(self, image_id: str) -> Image:
        """Raises NotFound."""
        try:
            return self._images[image_id]
        except KeyError:
            raise NotFound(
                f"image {image_id!r}: not on this node", resource_type="image", resource_name=image_id
            ) from None

    def list(self) -> builtins.list[Image]:
        """Every image, ordered by id."""
        return [self._images[image_id] for image_id in sorted(self._images)]

    async def write(self, images: Sequence[Image]) -> builtins.list[Image]:
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

    async def remove(self, image_id: str) -> None:
        """Its layers are held no more. Idempotent."""
        async with self._writing:
            await self._drop(image_id)

    async def _keep(self, image: Image) -> None:
        self._hold(image)
        await finish(lambda: write_durably(self._path(image.id), image_to_json(image)))
        self._images[image.id] = image

    async def _restore(self, image_id: str, before: Image | None) -> None:
        if before is not None:
            await self._keep(before)
        else:
            await self._drop(image_id)

    async def _drop(self, image_id: str) -> None:
        await finish(lambda: self._delete(image_id))
        self._images.pop(image_id, None)
        self._layers.release(image_id)

    def _hold(self, image: Image) -> None:
        self._layers.hold(image.id, [*map(layer_name, image.layers), init_layer_name(image.layers)])

    def _path(self, image_id: str) -> Path:
        return self._directory / f"{image_id.removeprefix('sha256:')}.json"

    def _delete(self, image_id: str) -> None:
        self._path(image_id).unlink(missing_ok=True)
        sync_directory(self._directory)
