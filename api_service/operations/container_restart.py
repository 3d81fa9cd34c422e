"""Stop a container when it runs, and start it again."""

from __future__ import annotations

from api_service.deadline import Deadline
from api_service.operations.container_halt import resume
from api_service.operations.container_start import start_dependencies, start_locked
from api_service.operations.container_state import current, refuse_when_going, refuse_when_moving
from api_service.operations.container_stop import stop_locked, stop_time
from api_service.operations.engine import Engine
from api_service.operations.signal_argument import signal_number
from api_service.records.container import ContainerRecord

_START_TIME = 120.0  # seconds


async def restart_container(
    engine: Engine, container: str, *, signal: str = "", timeout: int | None = None, deadline: Deadline | None
) -> None:
    """The container keeps its lock in between, so nothing comes between the end and the start, its removal neither.

    `deadline` None: as long as stop and start take. Raises what a stop and a start raise.
    """
    number = signal_number(signal) if signal else None
    record = await engine.containers.find(container)
    refuse_when_going(record, "restart")
    limit = deadline or Deadline.after(stop_time(record, timeout) + _START_TIME)
    await engine.jobs.finish(
        _restart(engine, record, signal=number, timeout=timeout, deadline=limit), name=f"restart {record.name}"
    )


async def _restart(
    engine: Engine, record: ContainerRecord, *, signal: int | None, timeout: int | None, deadline: Deadline
) -> None:
    container_id = record.id
    await start_dependencies(engine, record, deadline)
    async with engine.locks.hold(container_id, "restart", deadline), deadline.enforced("restart the container"):
        record = await current(engine, container_id)
        refuse_when_going(record, "restart")
        record = await resume(engine, record)
        refuse_when_moving(record, "restart")
        if record.state.running:
            await stop_locked(engine, record, signal=signal, timeout=timeout, deadline=deadline)
            record = await current(engine, container_id)
        await start_locked(engine, record, deadline, told="restart")
