"""Change the size of a terminal."""

from __future__ import annotations

from api_service.deadline import Deadline
from api_service.operations.container_state import require_running, wrong_state
from api_service.operations.engine import Engine
from api_service.records.config import ConsoleSize
from common.errors import FailedPrecondition

_TIME = 10.0  # seconds


async def resize_exec(engine: Engine, exec_reference: str, size: ConsoleSize) -> None:
    """Raises NotFound, and FailedPrecondition when it does not run or has no terminal."""
    record = await engine.execs.find(exec_reference)
    if not record.config.tty or not record.running:
        why = "does not run" if record.config.tty else "has no terminal; create it with `tty`"
        raise FailedPrecondition(
            f"exec {record.id[:12]}: it {why}",
            resource_type="exec",
            resource_name=record.id,
            reason="EXEC_NOT_RUNNING" if record.config.tty else "NO_TERMINAL",
        )
    container = await engine.containers.find(record.container_id)
    executor = engine.nodes.get(container.node).executor
    await executor.containers.resize_exec(record.id, size, deadline=Deadline.after(_TIME))


async def resize_container(engine: Engine, container: str, size: ConsoleSize, *, deadline: Deadline) -> None:
    """Raises NotFound, and FailedPrecondition when it does not run or has no terminal."""
    record = await engine.containers.find(container)
    require_running(record, "resize")
    if not record.config.tty:
        raise wrong_state(record, "has no terminal; create it with `config.tty`", reason="NO_TERMINAL")
    await engine.nodes.get(record.node).executor.containers.resize_terminal(record.id, size, deadline=deadline)
