"""Freeze every process of a container, and let them go on."""

from __future__ import annotations

from api_service.deadline import Deadline
from api_service.operations.container_state import current, require_running, wrong_state
from api_service.operations.engine import Engine
from api_service.records.container import ContainerRecord, Status


async def pause_container(engine: Engine, container: str, *, deadline: Deadline) -> None:
    """Raises FailedPrecondition for one that is paused already, waits for its restart or does not run; NotFound,
    DeadlineExceeded when a process cannot be frozen, Unavailable."""
    record = await engine.containers.find(container)
    _require_unpaused(record)
    await engine.jobs.finish(_pause(engine, record.id, deadline), name=f"pause {record.name}")


async def _pause(engine: Engine, container_id: str, deadline: Deadline) -> None:
    async with engine.locks.hold(container_id, "pause", deadline), deadline.enforced("pause the container"):
        record = await current(engine, container_id)
        _require_unpaused(record)
        node = engine.nodes.get(record.node)
        if (entry := await node.executor.containers.pause(record.id, deadline=deadline)) is not None:
            await node.settle(entry)


async def unpause_container(engine: Engine, container: str, *, deadline: Deadline) -> None:
    """Raises FailedPrecondition for one that is not paused, NotFound, Unavailable."""
    record = await engine.containers.find(container)
    _require_paused(record)
    await engine.jobs.finish(_unpause(engine, record.id, deadline), name=f"unpause {record.name}")


async def _unpause(engine: Engine, container_id: str, deadline: Deadline) -> None:
    async with engine.locks.hold(container_id, "unpause", deadline), deadline.enforced("unpause the container"):
        record = await current(engine, container_id)
        _require_paused(record)
        node = engine.nodes.get(record.node)
        if (entry := await node.executor.containers.unpause(record.id, deadline=deadline)) is not None:
            await node.settle(entry)


def _require_unpaused(record: ContainerRecord) -> None:
    if record.status is Status.RESTARTING:
        why = "is restarting, wait until the container is running"
        raise wrong_state(record, why, reason="CONTAINER_RESTARTING")
    require_running(record, "pause")
    if record.state.paused:
        raise wrong_state(record, "is already paused", reason="CONTAINER_PAUSED")


def _require_paused(record: ContainerRecord) -> None:
    if record.status is not Status.RESTARTING:
        require_running(record, "unpause")
    if not record.state.paused:
        raise wrong_state(record, "is not paused", reason="CONTAINER_NOT_PAUSED")
