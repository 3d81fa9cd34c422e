"""Everything known of one container, from the records alone: a node that hangs cannot make it hang."""

from __future__ import annotations

from collections.abc import Sequence

from api_service.operations.engine import Engine
from api_service.records.container import ContainerRecord


async def inspect_container(engine: Engine, container: str) -> tuple[ContainerRecord, Sequence[str]]:
    """The record, and the ids of its execs that run or are still to be started, as Docker's ExecIDs. Raises NotFound,
    InvalidArgument for an ambiguous prefix."""
    record = await engine.containers.find(container)
    if not record.state.running:
        return record, ()
    return record, [each.id for each in await engine.execs.of(record.id) if each.finished_at is None]
