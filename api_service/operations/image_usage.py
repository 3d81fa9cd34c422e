"""What each image takes on the disks, alone and together with others. As `docker system df -v` shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from api_service.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.operations.image_remove import images_of
from api_service.operations.node_answers import ask_nodes
from api_service.records.image import ImageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUsage:
    """Bytes, unpacked: `shared` are those of layers that another image has as well. `containers`: how many need it,
    running or not."""

    image: ImageRecord
    shared: int
    unique: int
    containers: int


async def image_usage(engine: Engine, *, deadline: Deadline) -> Sequence[ImageUsage]:
    """Of every image, a layer that it has twice counted once; the largest share of its own first, as the nodes
    that answer say. Raises Unavailable when none does."""
    answered = await ask_nodes(engine, lambda node, limit: node.executor.images.list(deadline=limit), deadline)
    stored = answered.answers.values()
    layers = {
        image.id: dict(zip(image.layers, image.layer_sizes, strict=False)) for images in stored for image in images
    }
    holders = Counter(layer for sizes in layers.values() for layer in sizes)
    users = Counter(image for record in await engine.containers.every_phase() for image in images_of(record))
    found = [
        _usage(record, layers.get(record.id, {}), holders, users[record.id])
        for record in await engine.images.all()
        if not record.condemned
    ]
    return sorted(found, key=lambda usage: (-usage.unique, usage.image.id))


def _usage(image: ImageRecord, sizes: dict[str, int], holders: Counter[str], containers: int) -> ImageUsage:
    shared = sum(size for layer, size in sizes.items() if holders[layer] > 1)
    return ImageUsage(image=image, shared=shared, unique=sum(sizes.values()) - shared, containers=containers)
