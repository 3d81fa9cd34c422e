"""The steps an image was built by. Source: `history` of
https://github.com/opencontainers/image-spec/blob/main/config.md, shown as `docker history` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from api_service.deadline import Deadline
from api_service.executor_client.images import StoredImage
from api_service.operations.engine import Engine
from api_service.operations.image_record import created_at
from api_service.operations.image_resolve import resolve_image
from api_service.operations.node_choice import holder_of
from common.errors import FailedPrecondition

MISSING = "<missing>"


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """`created` is in nanoseconds since the epoch, None when the image does not say; `size` in bytes, unpacked."""

    id: str
    created: int | None
    created_by: str
    size: int
    comment: str
    tags: tuple[str, ...] = ()


class _Step(BaseModel):
    """`null` stands for absent, as encoders of Go write it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    created: str | None = None
    created_by: str | None = None
    comment: str | None = None
    empty_layer: bool | None = None


class _Image(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    history: list[_Step] | None = None


async def list_image_history(engine: Engine, image: str, *, deadline: Deadline) -> Sequence[HistoryEntry]:
    """Newest first. Raises NotFound, FailedPrecondition (`HISTORY_UNREADABLE`), Unavailable."""
    record = await resolve_image(engine, image)
    stored = await holder_of(engine, record.nodes).executor.images.get(record.id, deadline=deadline)
    return history_of(stored, record.names)


def history_of(image: StoredImage, names: tuple[str, ...]) -> list[HistoryEntry]:
    """Layers of which the history does not tell come last in it, without words. Raises FailedPrecondition."""
    try:
        steps = _Image.model_validate_json(image.config).history or []
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FailedPrecondition(
            f"image {image.id}: its history is wrong at {where}: {first['msg']}; build the image again",
            resource_type="image",
            resource_name=image.id,
            reason="HISTORY_UNREADABLE",
        ) from error
    sizes = list(image.layer_sizes)
    entries = [_entry(step, 0 if step.empty_layer or not sizes else sizes.pop(0)) for step in steps]
    entries += [_entry(_Step(), size) for size in sizes]
    if not entries:
        return []
    newest = entries.pop()
    newest = HistoryEntry(
        id=image.id,
        created=newest.created,
        created_by=newest.created_by,
        size=newest.size,
        comment=newest.comment,
        tags=names,
    )
    return [newest, *reversed(entries)]


def _entry(step: _Step, size: int) -> HistoryEntry:
    return HistoryEntry(
        id=MISSING,
        created=created_at(step.created),
        created_by=step.created_by or "",
        size=size,
        comment=step.comment or "",
    )
