"""Ask a container's process to end, and see to it that it does."""

from __future__ import annotations

from api_service.deadline import Deadline
from api_service.executor_client.journal import JournalEntry
from api_service.nodes.registry import Node
from api_service.operations.container_halt import halt, halt_lost, is_lost, stay, will_run
from api_service.operations.container_state import current, refuse_when_going
from api_service.operations.engine import Engine
from api_service.operations.jobs import whole
from api_service.operations.signal_argument import signal_number
from api_service.records.container import ContainerRecord, Status
from api_service.records.event_shapes import container_event
from api_service.validation.container_create import DEFAULT_STOP_TIMEOUT
from common.errors import DeadlineExceeded, Unavailable

_WITHOUT_END = 24 * 3600.0  # seconds an executor is given when the caller waits without end
_LOST_TIME = 3.0  # seconds for a node that is lost, in case it has come back this moment
_KILL_TIME = 30.0  # seconds the executor needs, at most, to end what has got SIGKILL


async def stop_container(
    engine: Engine, container: str, *, signal: str = "", timeout: int | None = None, deadline: Deadline | None
) -> bool:
    """True when it did not run. `deadline` None: as long as the timeout takes.

    One that runs nowhere and would be started by itself is not any more. Raises InvalidArgument for an unknown signal,
    NotFound, Aborted, Unavailable.
    """
    number = signal_number(signal) if signal else None
    record = await engine.containers.find(container)
    idle = not record.state.active and not will_run(record)
    if idle or record.status in (Status.REMOVING, Status.DEAD):
        return True
    limit = deadline or Deadline.after(stop_time(record, timeout))
    return await engine.jobs.finish(
        _stop(engine, record.id, signal=number, timeout=timeout, deadline=limit), name=f"stop {record.name}"
    )


async def _stop(
    engine: Engine, container_id: str, *, signal: int | None, timeout: int | None, deadline: Deadline
) -> bool:
    async with engine.locks.hold(container_id, "stop", deadline), deadline.enforced("stop the container"):
        record = await current(engine, container_id)
        if not record.state.active and not will_run(record):
            return True
        refuse_when_going(record, "stop")
        if not record.state.active:
            await halt(engine, record)
            return False
        if record.moving:  # it runs where it has come to, or has not left yet
            await stay(engine, record)
        lost = is_lost(engine, record)
        limit = deadline.at_most(_LOST_TIME) if lost else deadline
        try:
            return not await stop_locked(engine, record, signal=signal, timeout=timeout, deadline=limit)
        except (Unavailable, DeadlineExceeded):
            if not lost or not await halt_lost(engine, record):
                raise
        return False


async def stop_locked(
    engine: Engine, record: ContainerRecord, *, signal: int | None, timeout: int | None, deadline: Deadline
) -> bool:
    """The stop itself, which calls a pending restart off as well; the caller holds the container's lock. False when
    nothing ran any more."""
    node = engine.nodes.get(record.node)
    entry = await node.executor.containers.stop(
        record.id,
        signal=signal if signal is not None else stop_signal(record),
        timeout=stop_timeout(record, timeout),
        deadline=deadline,
    )
    if entry is None:
        return False
    await whole(_settle(engine, node, record, entry))
    return True


async def _settle(engine: Engine, node: Node, record: ContainerRecord, entry: JournalEntry) -> None:
    """Its end and the event of the verb, which a deadline between the two would lose."""
    await node.settle(entry)
    await engine.events.add(container_event(record, "stop", engine.clock()))


def stop_signal(record: ContainerRecord) -> int:
    return signal_number(record.config.stop_signal, field="config.stop_signal")


def stop_timeout(record: ContainerRecord, asked: int | None) -> int:
    """Seconds; -1 without end."""
    if asked is not None:
        return asked
    return record.config.stop_timeout if record.config.stop_timeout is not None else DEFAULT_STOP_TIMEOUT


def stop_time(record: ContainerRecord, asked: int | None) -> float:
    """How long a stop may take, in seconds."""
    timeout = stop_timeout(record, asked)
    return _WITHOUT_END if timeout < 0 else timeout + _KILL_TIME
