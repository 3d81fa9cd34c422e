"""Everything known of one container, from the record alone: a node that hangs cannot make it hang."""

from __future__ import annotations

from api_service.operations.engine import Engine
from api_service.records.container import ContainerRecord


async def inspect_container(engine: Engine, container: str) -> ContainerRecord:
    """Raises NotFound, InvalidArgument for an ambiguous prefix."""
    return await engine.containers.find(container)
