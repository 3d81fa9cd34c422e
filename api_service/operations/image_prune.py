"""Remove the images that no container needs. Nothing is forced, and one that cannot be removed keeps no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.images import StoredImage
from api_service.operations.engine import Engine
from api_service.operations.image_remove import RemovedImage, remove_unused
from api_service.operations.label_filter import passes_labels
from api_service.operations.node_answers import ask_nodes
from api_service.records.event import Event, EventType
from api_service.records.image import ImageRecord
from common.errors import Aborted, SlipwayError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePruneFilter:
    """`dangling`: only those without a name. `labels` all hold; one that begins with `!` demands that it does not.
    `until`: only those built before this time, in nanoseconds since the epoch."""

    dangling: bool = True
    labels: tuple[str, ...] = ()
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedImages:
    """`space_reclaimed`: bytes of the layers that no image has any more."""

    untagged: Sequence[str]
    deleted: Sequence[str]
    space_reclaimed: int


async def prune_images(engine: Engine, wanted: ImagePruneFilter, *, deadline: Deadline) -> PrunedImages:
    """Raises Aborted (`PRUNE_RUNNING`) while another one is under way, Unavailable when no node answers,
    DeadlineExceeded with part of them removed."""
    untagged: list[str] = []
    deleted: list[str] = []
    async with engine.claims.try_hold("prune/images") as claim, deadline.enforced("prune images"):
        if claim is None:
            raise Aborted(
                "images are being pruned already; repeat the request when that has ended", reason="PRUNE_RUNNING"
            )
        before = await _stored(engine, deadline)
        for record in await engine.images.all():
            if _matches(record, wanted) and (removed := await _remove(engine, record.id, wanted, deadline)) is not None:
                untagged += removed.untagged
                deleted += removed.deleted
        reclaimed = _reclaimed(before, await _stored(engine, deadline), frozenset(deleted)) if deleted else 0
        details = {"reclaimed": str(reclaimed)}
        await engine.events.add(
            Event(type=EventType.IMAGE, action="prune", actor_id="", time=engine.clock(), details=details)
        )
    return PrunedImages(untagged=untagged, deleted=deleted, space_reclaimed=reclaimed)


async def _remove(engine: Engine, image_id: str, wanted: ImagePruneFilter, deadline: Deadline) -> RemovedImage | None:
    # Looked at again under the lock: it may have got a name or a container meanwhile.
    removing = remove_unused(engine, image_id, lambda record: _matches(record, wanted), deadline=deadline)
    try:
        return await engine.jobs.finish(removing, name=f"prune {image_id}")
    except SlipwayError as error:
        _log.warning("image not pruned", image=image_id, error=error.message)
        return None


async def _stored(engine: Engine, deadline: Deadline) -> Mapping[str, Sequence[StoredImage]]:
    """By node."""
    answered = await ask_nodes(engine, lambda node, limit: node.executor.images.list(deadline=limit), deadline)
    return answered.answers


def _reclaimed(
    before: Mapping[str, Sequence[StoredImage]],
    after: Mapping[str, Sequence[StoredImage]],
    deleted: frozenset[str],
) -> int:
    """Each layer counts once on every node that had it."""
    total = 0
    for had, has in ((before[node], after[node]) for node in before.keys() & after.keys()):
        gone = _layers([image for image in had if image.id in deleted])
        kept = _layers(has)
        total += sum(size for layer, size in gone.items() if layer not in kept)
    return total


def _layers(images: Sequence[StoredImage]) -> dict[str, int]:
    return {layer: size for image in images for layer, size in zip(image.layers, image.layer_sizes, strict=False)}


def _matches(record: ImageRecord, wanted: ImagePruneFilter) -> bool:
    return (
        not record.condemned
        and not (wanted.dangling and record.names)
        and (wanted.until is None or (record.created is not None and record.created < wanted.until))
        and passes_labels(record.config.labels, wanted.labels)
    )
