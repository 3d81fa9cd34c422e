"""Delete volumes, and what is in them: one by name, or all that nobody uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from api_service.deadline import Deadline
from api_service.operations.engine import Engine
from api_service.operations.label_filter import passes_labels
from api_service.operations.volume_use import remove_unused, volumes_of
from api_service.records.volume_repository import no_such_volume
from common.errors import FailedPrecondition

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedVolumes:
    """`space_reclaimed` in bytes."""

    names: Sequence[str]
    space_reclaimed: int


async def remove_volume(engine: Engine, name: str, *, force: bool, deadline: Deadline) -> None:
    """`force`: be content when there is none. Raises NotFound, FailedPrecondition (`VOLUME_IN_USE`), Unavailable."""
    if await engine.volumes.get(name) is None:
        if force:
            return
        raise no_such_volume(name)
    await engine.jobs.finish(remove_unused(engine, name, deadline), name=f"remove volume {name}")


async def prune_volumes(
    engine: Engine, *, all_of_them: bool, labels: Sequence[str], deadline: Deadline
) -> PrunedVolumes:
    """Those that no container uses; only anonymous ones unless `all_of_them`. A label with a leading `!` must not
    hold."""
    used = {name for record in await engine.containers.every_phase() for name in volumes_of(record)}
    gone: list[str] = []
    space = 0
    for volume in await engine.volumes.all():
        if volume.name in used or not (all_of_them or volume.anonymous) or not passes_labels(volume.labels, labels):
            continue
        removal = remove_unused(engine, volume.name, deadline)
        try:
            space += await engine.jobs.finish(removal, name=f"prune volume {volume.name}")
        except FailedPrecondition as error:
            _log.info("volume not pruned", volume=volume.name, reason=error.message)
        else:
            gone.append(volume.name)
    return PrunedVolumes(names=gone, space_reclaimed=space)
