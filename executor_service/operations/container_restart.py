"""A restart by the container's policy: the start itself when its time has come, and calling it off before."""

from __future__ import annotations

import uuid
from dataclasses import replace

import structlog

from common.errors import SlipwayError
from executor_service.container_record import ContainerRecord, Phase
from executor_service.journal_entries import JournalEntry, RestartCancelled
from executor_service.node import Node
from executor_service.operations.container_start import POLICY_START, start_locked
from executor_service.operations.start_failure import start_failed
from executor_service.operations.start_recovery import recover_start

_log = structlog.get_logger(__name__)


async def container_restart(node: Node, container_id: str, next_start: int) -> None:
    """Start the container if the restart that was set for `next_start` is still wanted. What keeps it from being
    started is journaled as a failed start, and tried again by its policy."""
    async with node.locks.hold_patiently(container_id):
        if (record := _pending(node, container_id, next_start)) is None:
            return
        start_id = f"{POLICY_START}{uuid.uuid4().hex}"
        try:
            await recover_start(node, record)
            if _pending(node, container_id, next_start) is None:
                return
            await start_locked(node, container_id, start_id=start_id, by_policy=True)
        except Exception as error:
            if _pending(node, container_id, next_start) is None:
                raise  # its outcome is journaled
            _log.warning("restart failed", container=container_id, exc_info=error)
            message = error.message if isinstance(error, SlipwayError) else "internal error; see the executor's log"
            await start_failed(node, container_id, start_id=start_id, message=message)


async def cancel_restart(node: Node, container_id: str) -> JournalEntry | None:
    """Under the container's lock. The `restart_cancelled` entry; None when none was pending."""
    record = node.records.get(container_id)
    if record.phase is not Phase.RESTARTING:
        return None
    entry = await node.records.transition(
        container_id,
        RestartCancelled(),
        phase=Phase.STOPPED,
        stopped=True,
        restart=replace(record.restart, next_start=None),
    )
    node.restarts.cancel(container_id)
    return entry


def _pending(node: Node, container_id: str, next_start: int) -> ContainerRecord | None:
    record = node.records.find(container_id)
    if record is None or record.removing or record.phase is not Phase.RESTARTING:
        return None
    return record if record.restart.next_start == next_start else None
