"""Send a signal to a container's process.

It takes no lock: whoever waits for a stop without end must be able to end it.
"""

from __future__ import annotations

import signal as signals

from api_service.deadline import Deadline
from api_service.operations.container_state import refuse_when_going, require_running, wrong_state
from api_service.operations.engine import Engine
from api_service.operations.signal_argument import signal_number
from api_service.records.container import ContainerRecord, Status

_KILL_TIMEOUT = 10  # seconds until the executor looks again at what has got SIGKILL


async def kill_container(engine: Engine, container: str, *, signal: str = "", deadline: Deadline) -> None:
    """SIGKILL answers when the process has ended, every other signal when it was sent. Any of them calls off the
    restart of a container that waits for it.

    Raises InvalidArgument for an unknown signal, FailedPrecondition when nothing runs, NotFound, Unavailable.
    """
    number = signal_number(signal) if signal else signals.SIGKILL
    record = await engine.containers.find(container)
    if not record.state.active:
        require_running(record, "kill")
    refuse_when_going(record, "kill")
    if number == signals.SIGKILL or record.status is Status.RESTARTING:
        await kill_and_settle(engine, record, deadline)
    else:
        await engine.nodes.get(record.node).executor.containers.signal(record.id, signal=number, deadline=deadline)


async def kill_and_settle(engine: Engine, record: ContainerRecord, deadline: Deadline) -> None:
    """SIGKILL, and its end, or that its restart was called off, in the record."""
    node = engine.nodes.get(record.node)
    entry = await node.executor.containers.stop(
        record.id, signal=signals.SIGKILL, timeout=_KILL_TIMEOUT, deadline=deadline
    )
    if entry is None:
        raise wrong_state(record, "is not running, it ended meanwhile", reason="CONTAINER_NOT_RUNNING")
    await node.settle(entry)
