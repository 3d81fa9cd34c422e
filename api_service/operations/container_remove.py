"""Remove a container for good.

It only goes forward: a tombstone in the record, the executor's removal, the record. A removal that was cut off is
finished when the node answers again (`node_sweep`); one that failed leaves a `dead` record that can be removed again.
"""

from __future__ import annotations

import asyncio
import dataclasses

from api_service.deadline import Deadline
from api_service.operations.container_kill import kill_and_settle
from api_service.operations.container_state import current, wrong_state
from api_service.operations.engine import Engine
from api_service.operations.image_remove import delete_condemned, images_of
from api_service.operations.removals import Removal
from api_service.operations.volume_use import remove_anonymous
from api_service.records.container import ContainerRecord, Phase
from api_service.records.container_repository import Changed
from api_service.records.event_shapes import container_event
from common.errors import DeadlineExceeded, FailedPrecondition, NotFound, SlipwayError, Unavailable

_REMOVAL_TIME = 120.0  # seconds; its own, because several callers may wait for one removal
_PING_TIME = 5.0  # seconds


async def remove_container(
    engine: Engine, container: str, *, force: bool, deadline: Deadline, volumes: bool = False
) -> None:
    """`volumes`: its anonymous ones, too. Raises FailedPrecondition when it runs and `force` is false, NotFound,
    Aborted, Unavailable."""
    record = await engine.containers.find(container)
    if record.phase is Phase.READY:
        _refuse_running(record, force=force)
    async with deadline.enforced(f"remove container {record.name!r}"):
        await asyncio.shield(join_removal(engine, record.id, force=force, volumes=volumes))


async def remove_ended(engine: Engine, container_id: str) -> None:
    """What `auto_remove` asks for. A container that runs again meanwhile stays."""
    try:
        await asyncio.shield(join_removal(engine, container_id, force=False, volumes=True))
    except (FailedPrecondition, NotFound):
        stored = await engine.containers.get(container_id)
        if stored is not None and not stored.record.state.active:
            raise


def join_removal(engine: Engine, container_id: str, *, force: bool, volumes: bool = False) -> asyncio.Task[None]:
    """The removal under way, or a new one."""
    removal = engine.removals.get(container_id)
    if removal is None or removal.task is None:
        removal = Removal(force=force)
        work = _remove(engine, container_id, removal, Deadline.after(_REMOVAL_TIME))
        engine.removals.begin(container_id, engine.jobs.start(work, name=f"remove {container_id[:12]}"), removal)
    removal.force = removal.force or force
    removal.volumes = removal.volumes or volumes
    assert removal.task is not None
    return removal.task


async def _remove(engine: Engine, container_id: str, removal: Removal, deadline: Deadline) -> None:
    record = await current(engine, container_id)
    if record.state.active and removal.force:
        # Before the lock: a stop that waits for the process would hold it until then.
        await _kill(engine, record, deadline)
    async with engine.locks.hold(container_id, "remove", deadline), deadline.enforced("remove the container"):
        stored = await engine.containers.get(container_id)
        if stored is None:
            return  # another replica was faster
        record = stored.record
        if record.phase is Phase.READY:
            _refuse_running(record, force=removal.force)
            if record.state.active:
                await _kill(engine, record, deadline)
            else:
                # A node that does not answer is found out while nothing has changed yet.
                await engine.nodes.get(record.node).executor.facts(deadline=deadline.at_most(_PING_TIME))
        # It may have moved until now, with volumes that are new, and does not from here on.
        record = await _set_phase(engine, container_id, Phase.REMOVING, volumes=removal.volumes) or record
        await _remove_from_node(engine, record, deadline)
        if removal.volumes or record.remove_volumes or record.host_config.auto_remove:
            await remove_anonymous(engine, record, deadline)
        await engine.execs.forget(container_id)
        await engine.containers.delete(container_id, lambda last: container_event(last, "destroy", engine.clock()))
    for image_id in images_of(record):
        await delete_condemned(engine, image_id)


async def _remove_from_node(engine: Engine, record: ContainerRecord, deadline: Deadline) -> None:
    try:
        await engine.nodes.get(record.node).executor.containers.remove(record.id, deadline=deadline)
    except (Unavailable, DeadlineExceeded):
        # Whether it happened is unknown. The tombstone stays, and it is finished when the node answers.
        raise
    except SlipwayError as error:
        await _set_phase(engine, record.id, Phase.DEAD, error=error.message)
        raise


async def _kill(engine: Engine, record: ContainerRecord, deadline: Deadline) -> None:
    try:
        await kill_and_settle(engine, record, deadline)
    except FailedPrecondition:
        return  # it ended by itself


async def _set_phase(
    engine: Engine, container_id: str, phase: Phase, *, error: str | None = None, volumes: bool = False
) -> ContainerRecord | None:
    def change(record: ContainerRecord) -> Changed | None:
        taking = volumes or record.remove_volumes
        if record.phase is phase and error is None and taking == record.remove_volumes:
            return None
        state = record.state if error is None else dataclasses.replace(record.state, error=error)
        return Changed(record=dataclasses.replace(record, phase=phase, state=state, remove_volumes=taking))

    return await engine.containers.update(container_id, change)


def _refuse_running(record: ContainerRecord, *, force: bool) -> None:
    if record.state.active and not force:
        what = "running" if record.state.running else "restarting"
        why = f"is {what}; stop it before removing it, or remove it with force"
        raise wrong_state(record, why, reason="CONTAINER_RUNNING")
