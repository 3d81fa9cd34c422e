"""Make an image of one layer from a tar of a root filesystem."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from api_service.deadline import Deadline
from api_service.executor_client.images import ImportSpec, StoredImage
from api_service.nodes.registry import Node
from api_service.operations.chunk_copies import for_each
from api_service.operations.engine import Engine
from api_service.operations.image_arrival import refuse_when_gone
from api_service.operations.image_name import image_name
from api_service.operations.image_record import encode_image_config, image_record
from api_service.operations.image_rules import check_image_config
from api_service.operations.node_choice import image_nodes
from api_service.operations.platform import parse_pull_platform
from api_service.records.config import ImageConfig
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """`reference` may be empty: the image then has no name. `node` and `platform` as in a `LoadRequest`."""

    reference: str
    config: ImageConfig
    platform: str = ""
    message: str = ""
    node: str = ""


async def import_image(
    engine: Engine, request: ImportRequest, chunks: AsyncIterator[bytes], *, deadline: Deadline
) -> ImageRecord:
    """One image, with one id on all nodes of one platform. Raises InvalidArgument before a node hears of it."""
    names = (image_name(request.reference, field="header.reference"),) if request.reference else ()
    check_image_config(engine, request.config, field="header.config")
    spec = ImportSpec(
        config=encode_image_config(request.config),
        platform=parse_pull_platform(request.platform, field="header.platform"),
        comment=request.message,
        created=engine.clock(),
    )
    nodes = image_nodes(engine, request.node)
    takers = [partial(each.executor.images.import_image, spec, deadline=deadline) for each in nodes]
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
