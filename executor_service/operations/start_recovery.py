"""A start that was interrupted by the executor's own end: undo what it left, and say that it failed."""

from __future__ import annotations

from common.errors import START_INTERRUPTED
from executor_service.container_record import ContainerRecord
from executor_service.node import Node
from executor_service.operations.start_failure import start_failed

_INTERRUPTED = "the executor was stopped or killed in the middle of this start; everything done for it was undone"


async def recover_start(node: Node, record: ContainerRecord) -> None:
    """Under the container's lock. Nothing was interrupted: nothing happens."""
    if not record.starting:
        return
    node.cleanup.expect(record.id, runtime=record.spec.runtime if record.spec else "")
    await node.cleanup.settle(record.id)
    await start_failed(node, record.id, start_id=record.starting, message=_INTERRUPTED, reason=START_INTERRUPTED)
