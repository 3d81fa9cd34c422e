"""Images as one archive, which `docker load` and LoadImage take."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from api_service.deadline import Deadline
from api_service.executor_client.images import SavedImage, SavedName
from api_service.operations.engine import Engine
from api_service.operations.image_resolve import resolve_image
from api_service.operations.node_choice import holder_of
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord
from api_service.validation.references import ImageReference, InvalidReference, parse_reference
from common.errors import FailedPrecondition


async def save_images(engine: Engine, images: Sequence[str], *, deadline: Deadline) -> AsyncGenerator[bytes]:
    """One that is asked for by name has that name in the archive, one that is asked for by id none. A repository
    without a tag means all its tags, as with `docker save`. Raises NotFound, InvalidArgument, FailedPrecondition
    (`IMAGES_APART`), Unavailable."""
    records: dict[str, ImageRecord] = {}
    names: dict[str, dict[SavedName, None]] = {}
    for index, text in enumerate(images):
        for record, found in await _meant(engine, text, field=f"images[{index}]"):
            records[record.id] = record
            names.setdefault(record.id, {}).update(dict.fromkeys(found))
    node = holder_of(engine, _nodes_of_all(list(records.values())))
    wanted = [SavedImage(image_id=image_id, names=tuple(found)) for image_id, found in names.items()]
    async with aclosing(node.executor.images.save(wanted, deadline=deadline)) as chunks:
        async for chunk in chunks:
            yield chunk
    for record in records.values():
        await engine.events.add(image_event(record, "save", engine.clock()))


async def _meant(engine: Engine, text: str, *, field: str) -> list[tuple[ImageRecord, list[SavedName]]]:
    """The images, each with the names that it is to have."""
    try:
        asked = parse_reference(text)
    except InvalidReference:
        return [(await resolve_image(engine, text, field=field), [])]
    if not asked.tag and not asked.digest and (tagged := await _tagged(engine, asked)):
        return tagged
    record = await resolve_image(engine, text, field=field)
    named = bool(asked.tag) and asked.familiar in record.names
    return [(record, [_saved_name(asked)] if named else [])]


async def _tagged(engine: Engine, repository: ImageReference) -> list[tuple[ImageRecord, list[SavedName]]]:
    """In the order of their tags."""
    found = [
        (record, reference)
        for record in await engine.images.all()
        if not record.condemned
        for reference in map(parse_reference, record.names)
        if (reference.domain, reference.path) == (repository.domain, repository.path)
    ]
    found.sort(key=lambda each: each[1].tag)
    return [(record, [_saved_name(reference)]) for record, reference in found]


def _saved_name(reference: ImageReference) -> SavedName:
    return SavedName(repository=reference.familiar_name, tag=reference.tag, canonical=reference.canonical)


def _nodes_of_all(records: Sequence[ImageRecord]) -> Sequence[str]:
    if found := [node for node in records[0].nodes if all(node in record.nodes for record in records)]:
        return found
    raise FailedPrecondition(
        "images: no node has all of them; save them one by one",
        resource_type="image",
        resource_name=records[0].id,
        reason="IMAGES_APART",
    )
