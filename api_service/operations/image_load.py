"""Take in an archive of images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from api_service.nodes.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.operations.image_record import image_record
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord


async def load_image(engine: Engine, chunks: AsyncIterator[bytes], *, deadline: Deadline) -> Sequence[ImageRecord]:
    """The images of the archive, with all names they have now. Raises InvalidArgument (`CORRUPT_IMAGE`),
    ResourceExhausted, Unavailable."""
    node = engine.nodes.place()
    stored = await node.executor.load_image(chunks, deadline=deadline)
    records = [image_record(image, node=node.name) for image in stored]
    async with engine.image_changes:
        return [await engine.images.add(record, [image_event(record, "load", engine.clock())]) for record in records]
