"""The containers a new one depends on, by their ids from now on: a rename changes nothing.

Only containers that exist can be named, and what a container depends on never changes, so no circle can come about.
"""

from __future__ import annotations

from dataclasses import replace

from api_service.operations.container_state import refuse_when_going
from api_service.operations.engine import Engine
from api_service.records.config import Dependency
from api_service.records.health import is_checked
from api_service.validation.dependencies import HEALTHY
from common.errors import InvalidArgument, Violation

_FIELD = "host_config.depends_on"


async def resolve_dependencies(
    engine: Engine, dependencies: tuple[Dependency, ...], *, node: str
) -> tuple[Dependency, ...]:
    """Raises NotFound for a container that does not exist, FailedPrecondition for one that is being removed,
    InvalidArgument for a condition that it cannot meet and for one that is named twice."""
    resolved: list[Dependency] = []
    broken: list[Violation] = []
    for index, dependency in enumerate(dependencies):
        record = await engine.containers.find(dependency.container)
        refuse_when_going(record, "depend on")
        if dependency.condition == HEALTHY and not is_checked(record.config.healthcheck):
            why = f"container {record.name!r} has no health check, so it never becomes healthy; wait for 'started'"
            broken.append(Violation(field=f"{_FIELD}[{index}].condition", description=why))
        if any(record.id == other.container for other in resolved):
            why = f"container {record.name!r} is named twice; give it one condition"
            broken.append(Violation(field=f"{_FIELD}[{index}].container", description=why))
        if record.node != node:
            why = f"container {record.name!r} is on another node, {record.node!r}"
            broken.append(Violation(field=f"{_FIELD}[{index}].container", description=why))
        resolved.append(replace(dependency, container=record.id))
    if broken:
        raise InvalidArgument(violations=broken)
    return tuple(resolved)
