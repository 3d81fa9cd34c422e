"""Take in an archive of images."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

from api_service.deadline import Deadline
from api_service.executor_client.images import StoredImage
from api_service.nodes.registry import Node
from api_service.operations.chunk_copies import for_each
from api_service.operations.engine import Engine
from api_service.operations.image_arrival import refuse_when_gone
from api_service.operations.image_name import refuse_more_names
from api_service.operations.image_record import image_record
from api_service.operations.node_choice import image_nodes
from api_service.operations.platform import parse_pull_platform
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord
from common.errors import FailedPrecondition, InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """Empty: every node that gets containers, and the platform of each."""

    node: str = ""
    platform: str = ""


async def load_image(
    engine: Engine, request: LoadRequest, chunks: AsyncIterator[bytes], *, deadline: Deadline
) -> Sequence[ImageRecord]:
    """The images of the archive, with all names they have now. Nodes that took it keep it when another one fails.
    Raises InvalidArgument (`CORRUPT_IMAGE`, `UNSUPPORTED_PLATFORM`), FailedPrecondition (`TOO_MANY_NAMES`),
    ResourceExhausted, Unavailable."""
    nodes = image_nodes(engine, request.node)
    platform = parse_pull_platform(request.platform)
    takers = [partial(each.executor.images.load, platform, deadline=deadline) for each in nodes]
    outcomes = await for_each(chunks, takers)
    records: Sequence[ImageRecord] = ()
    for taken_by, outcome in zip(nodes, outcomes, strict=True):
        if not isinstance(outcome, BaseException):
            records = await _recorded(engine, taken_by, outcome, deadline)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return records


async def _recorded(
    engine: Engine, node: Node, stored: Sequence[StoredImage], deadline: Deadline
) -> Sequence[ImageRecord]:
    try:
        records = [image_record(image, node=node.name) for image in stored]
        for record in records:
            refuse_more_names(record.id, len(record.names))
    except (FailedPrecondition, InvalidArgument):
        await _forget(engine, node, [image.id for image in stored], deadline)
        raise
    async with engine.image_changes:
        for record in records:
            await refuse_when_gone(node, record.id)
        return [await engine.images.add(record, [image_event(record, "load", engine.clock())]) for record in records]


async def _forget(engine: Engine, node: Node, ids: Sequence[str], deadline: Deadline) -> None:
    """An archive is taken whole or not at all."""
    for image_id in ids:
        if await engine.images.get(image_id) is None:
            await node.executor.images.remove(image_id, deadline=deadline)
