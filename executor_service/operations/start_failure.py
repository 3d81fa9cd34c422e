"""A start that failed: what is journaled, and whether its container is started again.

A client that asked for the start has the answer and decides for itself. A container that its restart policy was
starting again is tried again with the policy's delays, whoever made the attempt that failed.
"""

from __future__ import annotations

import time

from executor_service.container_record import ContainerRecord, Phase
from executor_service.journal_entries import JournalEntry, StartFailure
from executor_service.node import Node
from executor_service.restart import RestartState
from executor_service.supervision.restart_decision import End, after_end

OTHER_FAILURE = 128  # the exit code of a start that failed for no reason of the command's, as Docker shows it


async def start_failed(
    node: Node, container_id: str, *, start_id: str, message: str, exit_code: int = OTHER_FAILURE, reason: str = ""
) -> JournalEntry:
    """Under the container's lock, everything of the start undone. Raises NotFound."""
    now = time.time_ns()
    restart = _next(node.records.get(container_id), now)
    next_start = restart.next_start if restart is not None else None
    entry = await node.records.transition(
        container_id,
        StartFailure(start_id=start_id, exit_code=exit_code, message=message, reason=reason, next_start=next_start),
        time_ns=now,
        phase=Phase.STOPPED if restart is None else Phase.RESTARTING,
        starting="",
        restart=restart or RestartState(),
    )
    if next_start is not None:
        node.restarts.set(container_id, next_start)
    return entry


def _next(record: ContainerRecord, now: int) -> RestartState | None:
    if record.phase is not Phase.RESTARTING or record.spec is None or record.removing:
        return None
    return after_end(record.spec.restart_policy, record.restart, End(failed=True, at=now))
