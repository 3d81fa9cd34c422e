"""Make an image of one layer from a tar of a root filesystem."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from functools import partial

from api_service.nodes.deadline import Deadline
from api_service.nodes.executor import StoredImage
from api_service.nodes.registry import Node
from api_service.operations.chunk_copies import for_each
from api_service.operations.engine import Engine
from api_service.operations.image_arrival import refuse_when_gone
from api_service.operations.image_name import image_name
from api_service.operations.image_record import encode_image_config, image_record
from api_service.operations.image_rules import check_image_config
from api_service.operations.node_choice import image_nodes
from api_service.records.config import ImageConfig
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord


async def import_image(
    engine: Engine, reference: str, config: ImageConfig, chunks: AsyncIterator[bytes], *, node: str, deadline: Deadline
) -> ImageRecord:
    """`reference` may be empty: the image then has no name. `node` as in `load_image`. Raises InvalidArgument before a
    node hears of it."""
    names = (image_name(reference, field="header.reference"),) if reference else ()
    check_image_config(engine, config, field="header.config")
    nodes = image_nodes(engine, node)
    takers = [partial(each.executor.import_image, encode_image_config(config), deadline=deadline) for each in nodes]
    outcomes = await for_each(chunks, takers)
    record: ImageRecord | None = None
    for taken_by, outcome in zip(nodes, outcomes, strict=True):
        if not isinstance(outcome, BaseException):
            record = await _recorded(engine, taken_by, outcome, names)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    assert record is not None
    return record


async def _recorded(engine: Engine, node: Node, stored: StoredImage, names: tuple[str, ...]) -> ImageRecord:
    record = dataclasses.replace(image_record(stored, node=node.name), names=names)
    async with engine.image_changes:
        await refuse_when_gone(node, record.id)
        return await engine.images.add(record, [image_event(record, "import", engine.clock())])
