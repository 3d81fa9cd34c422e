"""Images as one archive, which `docker load` and LoadImage take."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from api_service.nodes.deadline import Deadline
from api_service.nodes.images import SavedImage, SavedName
from api_service.operations.engine import Engine
from api_service.operations.image_resolve import resolve_image
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord
from api_service.validation.references import InvalidReference, normalise_reference
from common.errors import FailedPrecondition


async def save_images(engine: Engine, images: Sequence[str], *, deadline: Deadline) -> AsyncGenerator[bytes]:
    """One that is asked for by name has that name in the archive, one that is asked for by id none. Raises NotFound,
    InvalidArgument, FailedPrecondition (`IMAGES_APART`), Unavailable."""
    records: dict[str, ImageRecord] = {}
    names: dict[str, dict[SavedName, None]] = {}
    for index, text in enumerate(images):
        record = await resolve_image(engine, text, field=f"images[{index}]")
        records[record.id] = record
        names.setdefault(record.id, {}).update(dict.fromkeys(_names(record, text)))
    node = engine.nodes.get(_node_of_all(list(records.values())))
    wanted = [SavedImage(image_id=image_id, names=tuple(found)) for image_id, found in names.items()]
    async with aclosing(node.executor.save_images(wanted, deadline=deadline)) as chunks:
        async for chunk in chunks:
            yield chunk
    for record in records.values():
        await engine.events.add(image_event(record, "save", engine.clock()))


def _names(record: ImageRecord, text: str) -> list[SavedName]:
    try:
        reference = normalise_reference(text)
    except InvalidReference:
        return []
    if not reference.tag or reference.familiar not in record.names:
        return []
    return [SavedName(repository=reference.familiar_name, tag=reference.tag, canonical=reference.canonical)]


def _node_of_all(records: Sequence[ImageRecord]) -> str:
    for node in records[0].nodes:
        if all(node in record.nodes for record in records):
            return node
    raise FailedPrecondition(
        "images: no node has all of them; save them one by one",
        resource_type="image",
        resource_name=records[0].id,
        reason="IMAGES_APART",
    )
