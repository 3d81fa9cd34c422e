"""What a container changed of its image's files."""

from __future__ import annotations

from collections.abc import Sequence

from api_service.deadline import Deadline
from api_service.executor_client.files import FileChange
from api_service.operations.container_state import refuse_when_going
from api_service.operations.engine import Engine


async def list_changes(engine: Engine, container: str, *, deadline: Deadline) -> Sequence[FileChange]:
    """In the order of their paths. Raises NotFound, FailedPrecondition, ResourceExhausted, Unavailable."""
    record = await engine.containers.find(container)
    refuse_when_going(record, "list the changes of")
    return await engine.nodes.get(record.node).executor.files.list_changes(record.id, deadline=deadline)
