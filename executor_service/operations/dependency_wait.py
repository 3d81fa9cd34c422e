"""What a container depends on, waited for before its restart policy starts it.

A client's start waits in the API service, which can also start the others. Here nobody is there to be told: after the
time each dependency is given, and at once when one is not on its way, the container is started all the same.
"""

from __future__ import annotations

import asyncio

import structlog

from executor_service.container_record import ContainerRecord, Phase
from executor_service.health import HealthStatus
from executor_service.journal_entries import Exited
from executor_service.node import Node
from executor_service.restart import Dependency, DependencyCondition

_log = structlog.get_logger(__name__)


async def dependencies_ready(node: Node, container_id: str) -> None:
    """Raises Unavailable when the executor is stopping."""
    record = node.records.find(container_id)
    dependencies = record.spec.dependencies if record is not None and record.spec is not None else ()
    if dependencies:
        await asyncio.gather(*(_ready(node, container_id, dependency) for dependency in dependencies))


async def _ready(node: Node, container_id: str, dependency: Dependency) -> None:
    try:
        async with asyncio.timeout(dependency.timeout):
            if await _comes_so_far(node, dependency):
                return
        why = "it is not on its way"
    except TimeoutError:
        why = f"not in {dependency.timeout:g} s"
    _log.warning(
        "started without what it depends on",
        container=container_id,
        dependency=dependency.container_id,
        condition=dependency.condition,
        why=why,
    )


async def _comes_so_far(node: Node, dependency: Dependency) -> bool:
    """Wait for it as long as it may come so far; False when it will not."""
    position = node.journal.head
    if (known := _state(node.records.find(dependency.container_id), dependency.condition)) is not None:
        return known
    async for _ in node.journal.follow(position):
        if (known := _state(node.records.find(dependency.container_id), dependency.condition)) is not None:
            return known
    return False


def _state(record: ContainerRecord | None, condition: DependencyCondition) -> bool | None:
    """True: so far it has come; False: it is not on its way; None: it may still come."""
    if record is None or record.removing:
        return False
    runs = record.phase.has_process
    pending = runs or record.phase is Phase.RESTARTING or record.starting != ""
    match condition:
        case DependencyCondition.STARTED:
            reached = runs
        case DependencyCondition.HEALTHY:
            reached = runs and record.health is not None and record.health.status is HealthStatus.HEALTHY
            pending = pending and (not runs or record.health is not None)
        case DependencyCondition.COMPLETED:
            last = record.last.event if record.last is not None else None
            reached = record.phase is Phase.STOPPED and isinstance(last, Exited) and last.exit_code == 0
    return True if reached else (None if pending else False)
