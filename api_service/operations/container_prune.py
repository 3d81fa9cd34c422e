"""Remove every container that does not run. Nothing is forced, and one that cannot be removed keeps no other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from api_service.deadline import Deadline
from api_service.operations.container_remove import join_removal
from api_service.operations.engine import Engine
from api_service.operations.label_filter import passes_labels
from api_service.records.container import ContainerRecord, Status
from api_service.records.event import Event, EventType
from common.errors import Aborted, SlipwayError

_log = structlog.get_logger(__name__)

_PRUNED = frozenset({Status.CREATED, Status.EXITED, Status.DEAD})


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneFilter:
    """`labels` all hold; one that begins with `!` demands that it does not. `until`: only those created before this
    time, in nanoseconds since the epoch."""

    labels: tuple[str, ...] = ()
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """`containers`: ids; `space_reclaimed`: bytes of their writable layers."""

    containers: Sequence[str]
    space_reclaimed: int


async def prune_containers(engine: Engine, wanted: PruneFilter, *, deadline: Deadline) -> Pruned:
    """Raises Aborted (`PRUNE_RUNNING`) while another one is under way, DeadlineExceeded with part of them removed."""
    removed: list[str] = []
    reclaimed = 0
    async with engine.claims.try_hold("prune/containers") as claim, deadline.enforced("prune containers"):
        if claim is None:
            raise Aborted(
                "containers are being pruned already; repeat the request when that has ended", reason="PRUNE_RUNNING"
            )
        for record in sorted(await engine.containers.all(), key=lambda record: record.created_at):
            if not _matches(record, wanted):
                continue
            try:
                reclaimed += await _remove(engine, record, deadline)
            except SlipwayError as error:
                _log.warning("container not pruned", container=record.id, error=error.message)
            else:
                removed.append(record.id)
        details = {"reclaimed": str(reclaimed)}
        event = Event(type=EventType.CONTAINER, action="prune", actor_id="", time=engine.clock(), details=details)
        await engine.events.add(event)
    return Pruned(containers=removed, space_reclaimed=reclaimed)


async def _remove(engine: Engine, record: ContainerRecord, deadline: Deadline) -> int:
    """The bytes it held."""
    executor = engine.nodes.get(record.node).executor
    usage = await executor.disk_usage(containers=[record.id], deadline=deadline)
    await asyncio.shield(join_removal(engine, record.id, force=False))
    return usage.containers_size


def _matches(record: ContainerRecord, wanted: PruneFilter) -> bool:
    return (
        record.status in _PRUNED
        and (wanted.until is None or record.created_at < wanted.until)
        and passes_labels(record.config.labels, wanted.labels)
    )
