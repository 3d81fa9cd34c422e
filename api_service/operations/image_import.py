"""Make an image of one layer from a tar of a root filesystem."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

from api_service.nodes.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.operations.image_arrival import refuse_when_gone
from api_service.operations.image_name import image_name
from api_service.operations.image_record import encode_image_config, image_record
from api_service.operations.image_rules import check_image_config
from api_service.records.config import ImageConfig
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord


async def import_image(
    engine: Engine, reference: str, config: ImageConfig, chunks: AsyncIterator[bytes], *, deadline: Deadline
) -> ImageRecord:
    """`reference` may be empty: the image then has no name. Raises InvalidArgument before the node hears of it."""
    names = (image_name(reference, field="header.reference"),) if reference else ()
    check_image_config(engine, config, field="header.config")
    node = engine.nodes.place()
    stored = await node.executor.import_image(encode_image_config(config), chunks, deadline=deadline)
    record = dataclasses.replace(image_record(stored, node=node.name), names=names)
    async with engine.image_changes:
        await refuse_when_gone(node, record.id)
        return await engine.images.add(record, [image_event(record, "import", engine.clock())])
