"""The processes of a running container."""

from __future__ import annotations

from collections.abc import Sequence

from api_service.deadline import Deadline
from api_service.executor_client.stats import Process
from api_service.operations.container_state import require_running
from api_service.operations.engine import Engine


async def list_processes(engine: Engine, container: str, *, deadline: Deadline) -> Sequence[Process]:
    """In the order of their ids. Raises NotFound, FailedPrecondition when it does not run, Unavailable."""
    record = await engine.containers.find(container)
    require_running(record, "list")
    return await engine.nodes.get(record.node).executor.containers.list_processes(record.id, deadline=deadline)
