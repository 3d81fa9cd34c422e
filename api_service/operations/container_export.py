"""A container's whole root filesystem as a tar archive."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from api_service.deadline import Deadline
from api_service.operations.container_state import refuse_when_going
from api_service.operations.engine import Engine
from api_service.records.event_shapes import container_event


async def export_container(engine: Engine, container: str, *, deadline: Deadline) -> AsyncGenerator[bytes]:
    """Raises NotFound, FailedPrecondition, Unavailable."""
    record = await engine.containers.find(container)
    refuse_when_going(record, "export")
    executor = engine.nodes.get(record.node).executor
    async with aclosing(executor.files.export_root(record.id, deadline=deadline)) as chunks:
        async for chunk in chunks:
            yield chunk
    await engine.events.add(container_event(record, "export", engine.clock()))
