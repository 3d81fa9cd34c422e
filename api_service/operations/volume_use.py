"""Who uses a volume, and its removal when nobody does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from api_service.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.records.container import ContainerRecord
from api_service.records.event_shapes import volume_event
from api_service.records.mount import MountType
from api_service.records.volume import VolumeRecord
from api_service.records.volume_repository import contended
from common.errors import DeadlineExceeded, FailedPrecondition, SlipwayError, Unavailable

_log = structlog.get_logger(__name__)

_MAX_ATTEMPTS = 16
_MAX_SHOWN = 5


async def users_of(engine: Engine, volume: str) -> list[ContainerRecord]:
    """Containers of every phase: one that is being created counts, too."""
    return [record for record in await engine.containers.every_phase() if volume in volumes_of(record)]


def volumes_of(record: ContainerRecord) -> list[str]:
    """Names of the volumes it mounts, each once."""
    return list(dict.fromkeys(point.source for point in record.mount_points if point.type is MountType.VOLUME))


async def remove_unused(
    engine: Engine, name: str, deadline: Deadline, *, ignoring: str = "", made_for: str = ""
) -> int:
    """Delete the volume everywhere; returns the bytes it held. Nothing there: nothing happens.

    `ignoring`: a container whose use does not count, because it is going, too. `made_for`: only if it was made for
    that container and nobody else has asked for it. Raises FailedPrecondition (`VOLUME_IN_USE`), and Unavailable when
    its node does not answer: then it is finished when that does.
    """
    # A second removal that is late would take from the node what somebody has made there anew.
    async with engine.volume_locks.hold(name, "remove", deadline):
        volume = await _condemn(engine, name, ignoring=ignoring, made_for=made_for)
        return 0 if volume is None else await _finish(engine, volume, deadline)


async def _finish(engine: Engine, volume: VolumeRecord, deadline: Deadline) -> int:
    """Of a volume that is marked."""
    try:
        size = await engine.nodes.get(volume.node).executor.volumes.remove(volume.name, deadline=deadline)
    except (Unavailable, DeadlineExceeded):
        raise  # whether it happened is unknown; the mark stays
    except SlipwayError:
        await engine.volumes.update(volume.name, lambda found: replace(found, removing=False))
        raise
    await engine.volumes.delete(volume.name, lambda last: volume_event(last, "destroy", engine.clock()))
    return size


async def remove_anonymous(engine: Engine, record: ContainerRecord, deadline: Deadline) -> None:
    """The anonymous volumes of a container that is being removed, unless another one uses them."""
    for name in dict.fromkeys(point.source for point in record.mount_points if point.anonymous):
        try:
            await remove_unused(engine, name, deadline, ignoring=record.id)
        except FailedPrecondition as error:
            _log.info("volume kept", volume=name, container=record.id, reason=error.message)


async def remove_made(engine: Engine, record: ContainerRecord, deadline: Deadline) -> None:
    """The volumes that were made for a container whose create is taken back. What fails is finished later, or kept."""
    for name in volumes_of(record):
        try:
            await remove_unused(engine, name, deadline, ignoring=record.id, made_for=record.id)
        except SlipwayError as error:
            _log.warning("volume of an unfinished create kept", volume=name, error=error.message)


async def _condemn(engine: Engine, name: str, *, ignoring: str, made_for: str) -> VolumeRecord | None:
    """Mark it, if nobody uses it. Its entry is read before the users are, so a use that begins in between changes the
    entry and the mark is refused."""
    for _ in range(_MAX_ATTEMPTS):
        stored = await engine.volumes.get(name)
        if stored is None or (made_for and stored.record.made_for != made_for):
            return None
        if users := [user for user in await users_of(engine, name) if user.id != ignoring]:
            raise _in_use(name, users)
        marked = replace(stored.record, removing=True)
        if stored.record.removing or await engine.volumes.replace(stored, marked):
            return marked
    raise contended(name)


def _in_use(name: str, users: Sequence[ContainerRecord]) -> FailedPrecondition:
    shown = ", ".join(user.name for user in users[:_MAX_SHOWN])
    more = f" and {len(users) - _MAX_SHOWN} more" if len(users) > _MAX_SHOWN else ""
    return FailedPrecondition(
        f"volume {name!r}: containers use it: {shown}{more}; remove them first",
        resource_type="volume",
        resource_name=name,
        reason="VOLUME_IN_USE",
    )
