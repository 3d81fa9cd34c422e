"""Take a name from an image, and the image itself when nobody needs it.

An image that a stopped container was made from can be removed by force. Its layers are the container's root as well, so
the node keeps them, and the image is `condemned`: nobody sees it, and the removal of its last container deletes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api_service.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.operations.image_resolve import resolve_image
from api_service.records.container import ContainerRecord
from api_service.records.event_shapes import image_event
from api_service.records.image import ImageRecord
from api_service.records.mount import MountType
from api_service.validation.references import InvalidReference, normalise_reference, parse_reference
from common.errors import FailedPrecondition

_DELETE_TIME = 60.0  # seconds
_MAX_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedImage:
    untagged: Sequence[str]
    deleted: Sequence[str]


async def remove_image(engine: Engine, image: str, *, force: bool, deadline: Deadline) -> RemovedImage:
    """Raises NotFound, FailedPrecondition (`IMAGE_IN_USE`, `IMAGE_HAS_NAMES`), Unavailable."""
    async with engine.image_changes:
        record = await resolve_image(engine, image)
        name = _name_meant(record, image)
        going = _going(record, name) if name is not None and not force else frozenset(record.references)
        if len(going) < len(record.references):
            events = [image_event(record, "untag", engine.clock(), name=each) for each in sorted(going)]
            await engine.images.untag(record.id, going, events)
            return RemovedImage(untagged=[each for each in record.references if each in going], deleted=[])
        if name is None and len(record.names) > 1 and not force:
            why = f"it has several names ({', '.join(record.names)}); remove those, or use force"
            raise _refused(record, why, "IMAGE_HAS_NAMES")
        _refuse_used(record, await _users(engine, record.id), force=force)
        await _delete(engine, record, deadline)
        return RemovedImage(untagged=record.references, deleted=[record.id])


async def remove_unused(
    engine: Engine, image_id: str, wanted: Callable[[ImageRecord], bool], *, deadline: Deadline
) -> RemovedImage | None:
    """With all its names, if `wanted` is true of it and no container needs it; None when it was left alone."""
    async with engine.image_changes:
        record = await engine.images.get(image_id)
        if record is None or record.condemned or not wanted(record) or await _users(engine, image_id):
            return None
        await _delete(engine, record, deadline)
        return RemovedImage(untagged=record.references, deleted=[record.id])


async def delete_condemned(engine: Engine, image_id: str) -> None:
    """Delete the image if it is condemned and nobody uses it any more."""
    image = await engine.images.get(image_id)
    if image is None or not image.condemned:
        return
    async with engine.image_changes:
        image = await engine.images.get(image_id)
        if image is not None and image.condemned and not await _users(engine, image_id):
            await _remove_from_nodes(engine, image, Deadline.after(_DELETE_TIME))
            await engine.images.delete(image_id, [])


async def _delete(engine: Engine, record: ImageRecord, deadline: Deadline) -> None:
    events = [image_event(record, "untag", engine.clock(), name=name) for name in record.references]
    events.append(image_event(record, "delete", engine.clock()))
    if await _users(engine, record.id):
        await engine.images.condemn(record.id, events)
        return
    await _remove_from_nodes(engine, record, deadline)
    await engine.images.delete(record.id, events)


async def _remove_from_nodes(engine: Engine, record: ImageRecord, deadline: Deadline) -> None:
    for node in record.nodes:
        await engine.nodes.get(node).executor.images.remove(record.id, deadline=deadline)


async def _users(engine: Engine, image_id: str) -> list[ContainerRecord]:
    """Containers of every phase: one that is being created counts, too."""
    return [record for record in await engine.containers.every_phase() if image_id in images_of(record)]


def images_of(record: ContainerRecord) -> set[str]:
    """Ids of the images a container needs: its own, and those that it mounts."""
    return {record.image_id, *(point.source for point in record.mount_points if point.type is MountType.IMAGE)}


def _refuse_used(image: ImageRecord, users: Sequence[ContainerRecord], *, force: bool) -> None:
    running = [user for user in users if user.state.active]
    if running:
        raise _refused(image, f"containers run from it: {_shown(running)}; stop them first", "IMAGE_IN_USE")
    if users and not force:
        raise _refused(
            image, f"containers were made from it: {_shown(users)}; remove them first, or use force", "IMAGE_IN_USE"
        )


def _shown(users: Sequence[ContainerRecord]) -> str:
    names = ", ".join(user.name for user in users[:_MAX_SHOWN])
    return names + (f" and {len(users) - _MAX_SHOWN} more" if len(users) > _MAX_SHOWN else "")


def _name_meant(image: ImageRecord, text: str) -> str | None:
    """The name or digest the request gave; None when it gave an id."""
    try:
        name = normalise_reference(text).lookup
    except InvalidReference:
        return None
    return name if name in image.references else None


def _going(image: ImageRecord, name: str) -> frozenset[str]:
    """With the last tag of a repository its digests go as well, as Docker has it."""
    repository = parse_reference(name).familiar_name
    alike = {each for each in image.references if parse_reference(each).familiar_name == repository}
    tags = alike & set(image.names)
    return frozenset(alike if tags == {name} else {name})


def _refused(image: ImageRecord, why: str, reason: str) -> FailedPrecondition:
    shown = image.names[0] if image.names else image.id
    return FailedPrecondition(f"image {shown!r}: {why}", resource_type="image", resource_name=image.id, reason=reason)
