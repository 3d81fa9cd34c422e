"""Stop a container: its signal, a while of patience, SIGKILL."""

from __future__ import annotations

import asyncio
import signal as signals

import structlog

from common.errors import FailedPrecondition, Internal, InvalidArgument, Violation
from executor_service.journal_entries import Exited, JournalEntry
from executor_service.node import Node
from executor_service.operations.container_pause import thaw_frozen
from executor_service.operations.container_restart import cancel_restart
from executor_service.operations.container_rules import id_violations, signal_violations
from executor_service.operations.container_signal import send_signal
from executor_service.restart import RestartCondition
from executor_service.supervision.supervisor import Watch

_log = structlog.get_logger(__name__)

FOREVER = -1
_SOON = 0.2  # seconds; what is not frozen has long died by then


async def container_stop(node: Node, *, container_id: str, signal: int, timeout: int) -> JournalEntry | None:
    """The `exited` entry, the `restart_cancelled` one when a restart was pending, None when nothing ran. `timeout` is
    in seconds, -1 means never to send SIGKILL. Raises NotFound, and Internal when the process does not die of SIGKILL.
    """
    broken = [*id_violations(container_id), *signal_violations(signal)]
    if timeout < FOREVER:
        broken.append(Violation(field="timeout", description=f"{timeout} must be -1 (never) or more seconds"))
    if broken:
        raise InvalidArgument(violations=broken)
    # After a start that is under way, but not while waiting: a second, more impatient stop must get through.
    async with node.locks.hold(container_id):
        if (entry := await cancel_restart(node, container_id)) is not None:
            return entry
        watch = node.supervisor.watched(container_id)
    if watch is None:
        return None
    watch.stopping = True
    entry = await _end(node, container_id, watch, signal=signal, timeout=timeout)
    if entry is None or not isinstance(entry.event, Exited) or entry.event.next_start is None:
        return entry
    # It ended by itself, and its restart was decided before we came.
    async with node.locks.hold(container_id):
        return await cancel_restart(node, container_id) or entry


async def stop_unhealthy(node: Node, container_id: str, start_id: str) -> None:
    """What a container's restart policy may want when its health check says that it is not well: end the run, as its
    specification says to end it, so that the policy starts it again."""
    watch, record = node.supervisor.watched(container_id), node.records.find(container_id)
    if watch is None or watch.run.start_id != start_id or record is None or record.spec is None or watch.stopping:
        return
    policy = record.spec.restart_policy
    if not policy.on_unhealthy or policy.condition is RestartCondition.NEVER:
        return
    watch.unhealthy = True
    _log.warning("stopped: unhealthy", container=container_id)
    await _end(node, container_id, watch, signal=record.spec.stop_signal, timeout=record.spec.stop_timeout)


async def _end(node: Node, container_id: str, watch: Watch, *, signal: int, timeout: int) -> JournalEntry | None:
    await _send(node, container_id, watch, signal)
    if await _ended(watch, None if timeout == FOREVER else timeout):
        return watch.ended.result()
    return await kill(node, container_id, watch)


async def kill(node: Node, container_id: str, watch: Watch) -> JournalEntry | None:
    """SIGKILL, and a bounded wait for the end. Raises Internal."""
    await _send(node, container_id, watch, signals.SIGKILL)
    if not await _ended(watch, min(_SOON, node.limits.kill)):
        # A pause may have come between the signal and its effect.
        await thaw_frozen(node, container_id)
    if await _ended(watch, node.limits.kill):
        return watch.ended.result()
    pid = watch.run.process.container.pid
    raise Internal(
        f"container {container_id!r}: its process {pid} has not died {node.limits.kill:g} s after SIGKILL; it waits in "
        f"the kernel, /proc/{pid}/stack says where",
        reason="UNKILLABLE",
        metadata={"pid": str(pid)},
    )


async def _send(node: Node, container_id: str, watch: Watch, signal: int) -> None:
    try:
        await send_signal(node, container_id, watch, signal)
    except FailedPrecondition:
        return  # it has just ended, which is what the signal was for


async def _ended(watch: Watch, timeout: float | None) -> bool:
    done, _ = await asyncio.wait({watch.ended}, timeout=timeout)
    return bool(done)
