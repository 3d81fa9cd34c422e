"""Give an image a further name."""

from __future__ import annotations

import dataclasses

from api_service.operations.engine import Engine
from api_service.operations.image_name import image_name, refuse_more_names
from api_service.operations.image_resolve import resolve_image
from api_service.records.event_shapes import image_event


async def tag_image(engine: Engine, image: str, target: str) -> None:
    """A name that meant another image moves. Raises NotFound, InvalidArgument, FailedPrecondition."""
    name = image_name(target, field="target")
    async with engine.image_changes:
        record = await resolve_image(engine, image)
        if name not in record.names:
            refuse_more_names(record.id, len(record.names) + 1)
            named = dataclasses.replace(record, names=(name,), digests=())
            await engine.images.add(named, [image_event(record, "tag", engine.clock(), name=name)])
