"""What a container depends on, before a client's start of it: started if it does not run, then waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from api_service.deadline import Deadline
from api_service.operations.container_state import wrong_state
from api_service.operations.engine import Engine
from api_service.records.config import Dependency
from api_service.records.container import ContainerRecord
from api_service.records.health import HealthStatus
from api_service.validation.dependencies import COMPLETED, HEALTHY
from common.errors import DeadlineExceeded, FailedPrecondition, SlipwayError, Unavailable

_SECOND = 1_000_000_000  # nanoseconds

Start = Callable[[ContainerRecord], Awaitable[object]]
"""Start a container with what it depends on itself."""


async def meet_dependencies(engine: Engine, record: ContainerRecord, start: Start, deadline: Deadline) -> None:
    """Raises FailedPrecondition and DeadlineExceeded naming the container that has not come so far, and its state."""
    dependencies = record.host_config.depends_on
    for dependency in dependencies:
        await _start(engine, record, dependency, start)
    if dependencies:
        await asyncio.gather(*(_wait(engine, record, dependency, deadline) for dependency in dependencies))


async def _start(engine: Engine, record: ContainerRecord, dependency: Dependency, start: Start) -> None:
    found = await _find(engine, record, dependency)
    if found.state.running or (dependency.condition == COMPLETED and _completed(found)):
        return
    try:
        await start(found)
    except (Unavailable, DeadlineExceeded):
        raise
    except SlipwayError as error:
        raise _not_met(record, found, f"could not be started: {error.message}") from error


async def _wait(engine: Engine, record: ContainerRecord, dependency: Dependency, deadline: Deadline) -> None:
    latest = await _find(engine, record, dependency)
    limit = deadline.at_most(dependency.timeout / _SECOND)
    try:
        async with asyncio.timeout(limit.remaining) as scope, aclosing(engine.containers.watch(latest.id)) as records:
            async for found in records:
                if found is None:
                    break
                latest = found
                if _meets(record, found, dependency.condition):
                    return
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise DeadlineExceeded(
            f"container {record.name!r}: it depends on {latest.name!r}, which is not {dependency.condition} in time "
            f"({_state(latest)}); give the dependency a longer timeout, or see why it takes so long",
            reason="DEPENDENCY_TOO_LATE",
            metadata={"dependency": latest.id, "state": latest.status.value},
        ) from error
    raise _gone(record, latest.name)


async def _find(engine: Engine, record: ContainerRecord, dependency: Dependency) -> ContainerRecord:
    stored = await engine.containers.get(dependency.container)
    if stored is None:
        raise _gone(record, dependency.container[:12])
    return stored.record


def _meets(record: ContainerRecord, found: ContainerRecord, condition: str) -> bool:
    """Raises FailedPrecondition when it will not meet the condition by itself."""
    if condition == COMPLETED:
        if not found.state.active and not _completed(found):
            raise _not_met(record, found, f"has not completed successfully ({_state(found)})")
        return _completed(found)
    if not found.state.active:
        raise _not_met(record, found, f"does not run ({_state(found)})")
    if condition == HEALTHY:
        status = found.state.health.status if found.state.health is not None else None
        if status is HealthStatus.UNHEALTHY:
            raise _not_met(record, found, f"is not healthy ({_state(found)})")
        return status is HealthStatus.HEALTHY
    return found.state.running


def _completed(found: ContainerRecord) -> bool:
    return not found.state.active and found.state.finished_at is not None and found.state.exit_code == 0


def _state(found: ContainerRecord) -> str:
    """For people: `exited with code 1`, `running, unhealthy`."""
    state = found.state
    words = found.status.value
    if not state.running and state.exit_code is not None:
        words += f" with code {state.exit_code}"
    return f"{words}, {state.health.status.value}" if state.running and state.health is not None else words


def _not_met(record: ContainerRecord, found: ContainerRecord, why: str) -> FailedPrecondition:
    error = wrong_state(record, f"it depends on {found.name!r}, which {why}", reason="DEPENDENCY_NOT_MET")
    error.metadata.update(dependency=found.id, dependency_state=found.status.value)
    return error


def _gone(record: ContainerRecord, name: str) -> FailedPrecondition:
    why = f"it depends on container {name!r}, which was removed; create this one anew without it"
    return wrong_state(record, why, reason="DEPENDENCY_NOT_MET")
