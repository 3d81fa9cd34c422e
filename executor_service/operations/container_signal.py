"""Send a signal to a container's first process.

SIGKILL and the container's stop signal say that its end is wanted: no restart follows then, as with Docker.
"""

from __future__ import annotations

import signal as signals

import structlog

from common.errors import InvalidArgument, SlipwayError
from executor_service.container_record import Phase
from executor_service.journal_entries import Signaled
from executor_service.node import Node
from executor_service.operations.container_pause import let_go, thaw_frozen
from executor_service.operations.container_restart import cancel_restart
from executor_service.operations.container_rules import id_violations, signal_violations
from executor_service.operations.running import not_running
from executor_service.records import Change
from executor_service.supervision.supervisor import Watch
from executor_service.threads import to_the_end

_log = structlog.get_logger(__name__)


async def container_signal(node: Node, *, container_id: str, signal: int) -> None:
    """Of a container that waits for its restart it calls that off. Raises NotFound, and FailedPrecondition when the
    container does not run."""
    if broken := [*id_violations(container_id), *signal_violations(signal)]:
        raise InvalidArgument(violations=broken)
    record = node.records.get(container_id)
    watch = node.supervisor.watched(container_id)
    if watch is None:
        async with node.locks.hold(container_id):
            if await cancel_restart(node, container_id) is not None:
                return
        raise not_running(record)
    if signal == signals.SIGKILL or (record.spec is not None and signal == record.spec.stop_signal):
        watch.stopping = True
    await to_the_end(send_signal(node, container_id, watch, signal))


async def send_signal(node: Node, container_id: str, watch: Watch, signal: int) -> None:
    """Send it, then journal it. The exit that it causes is journaled after it: both go through one queue, and the exit
    is only seen by a later turn of the event loop. Raises FailedPrecondition when the process is gone."""
    ends = _must_go_on(node, container_id, watch, signal)
    if ends:
        await let_go(node, container_id)
    record = node.records.find(container_id)
    init = record is not None and record.spec is not None and record.spec.init
    await node.seams.runtime.kill(container_id, watch.run.process.container, signal, init=init)
    change = Change(stopped=True) if watch.stopping else Change()
    try:
        await node.records.transition(container_id, Signaled(signal=signal), **change)
    except SlipwayError as error:
        # It is sent: saying otherwise would be wrong, and a full disk must not keep a container from being stopped.
        _log.error("a signal cannot be journaled", container=container_id, signal=signal, error=error.message)
    if ends:
        await thaw_frozen(node, container_id)


def _must_go_on(node: Node, container_id: str, watch: Watch, signal: int) -> bool:
    """Whether it is frozen and meant to end; any other signal waits until somebody lets it go on."""
    record = node.records.find(container_id)
    meant = signal == signals.SIGKILL or watch.stopping or watch.unhealthy
    return meant and record is not None and record.phase is Phase.PAUSED
