"""Stop a container that is to run and runs nowhere: it is on its way to another node, or its node is lost and no other
takes it. There is nothing to be asked to end, only the wish that it runs, which is in its record."""

from __future__ import annotations

import dataclasses
import signal
from contextlib import suppress
from functools import partial

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.nodes.transitions import given_up
from api_service.operations.engine import Engine
from api_service.operations.node_leftovers import Leftovers
from api_service.records.config import ON_NODE_LOSS
from api_service.records.container import ContainerRecord, JournalPosition
from api_service.records.container_repository import Changed
from api_service.records.event_shapes import container_event
from api_service.records.node import NodeState
from api_service.records.node_repository import lost
from api_service.store.store import RevisionConflict
from common.errors import NotFound

_CALL_TIME = 60.0  # seconds
_LOST = "its node was lost, and it was stopped before another one had room for it"


def will_run(record: ContainerRecord) -> bool:
    """Whether it is started by itself, though it does not run."""
    return (record.moving or record.state.lease_over) and not record.halted


def is_lost(engine: Engine, record: ContainerRecord) -> bool:
    """Whether it runs no more, as its node's lease is over, whatever its record says."""
    state = engine.nodes.get(record.node).record.status.state
    return state is NodeState.LOST and record.host_config.reschedule == ON_NODE_LOSS


async def halt(engine: Engine, record: ContainerRecord) -> None:
    """The caller holds the container's lock. How its last run ended is told when its node is back."""
    await engine.containers.update(record.id, partial(_halted, engine))


async def halt_lost(engine: Engine, record: ContainerRecord) -> bool:
    """The same, of one whose node is lost. False when it is not any more, whatever is known here, and may run it."""
    try:
        await engine.containers.update(record.id, partial(_halted, engine), [lost(record.node)])
    except RevisionConflict:
        return False
    return True


def _halted(engine: Engine, found: ContainerRecord) -> Changed:
    ended, events = given_up(found, _LOST, now=engine.clock())
    halted = dataclasses.replace(ended, halted=True, halted_at=JournalPosition())
    return Changed(record=halted, events=[*events, container_event(halted, "stop", engine.clock())])


async def stay(engine: Engine, record: ContainerRecord) -> None:
    """It is where it is to be; the caller holds the container's lock."""
    await engine.containers.update(record.id, lambda found: Changed(record=dataclasses.replace(found, moving=False)))


async def resume(engine: Engine, record: ContainerRecord) -> ContainerRecord:
    """Before it is asked to run again, also when it moves and cannot be asked yet: without a halt it is started where
    it arrives, and moves on when that node is lost. The caller holds the container's lock."""
    if not record.halted:
        return record
    resumed = await engine.containers.update(
        record.id, lambda found: Changed(record=dataclasses.replace(found, halted=False))
    )
    return resumed or record


async def call_off(engine: Engine, node: Node, left: Leftovers) -> None:
    """Before the node gets its lease, for which its own restart policies wait: they know nothing of a halt. Each is
    told once, and under the container's lock: a node comes back with its lease in force, too, and then a client may
    start it meanwhile. Those in `left` are not tried again. Raises Aborted, Unavailable, DeadlineExceeded."""
    for record in await engine.containers.on_node(node.name):
        if _is_untold(record) and not left.stop_failed(record.id):
            deadline = Deadline.after(_CALL_TIME)
            with left.stopping(record.id):
                async with engine.locks.hold(record.id, "stop", deadline):
                    await _call_off_one(engine, node, record.id, deadline)


def _is_untold(record: ContainerRecord) -> bool:
    return record.halted and not record.halted_at.journal_id


async def _call_off_one(engine: Engine, node: Node, container_id: str, deadline: Deadline) -> None:
    stored = await engine.containers.get(container_id)
    if stored is None or stored.record.node != node.name or not _is_untold(stored.record):
        return
    with suppress(NotFound):  # it was not laid out yet
        await node.executor.containers.stop(container_id, signal=signal.SIGKILL, timeout=0, deadline=deadline)
    snapshot = await node.executor.snapshot(deadline=deadline)
    told = JournalPosition(journal_id=snapshot.journal_id, sequence=snapshot.sequence)
    await engine.containers.update(container_id, partial(_told, told))


def _told(position: JournalPosition, found: ContainerRecord) -> Changed | None:
    return Changed(record=dataclasses.replace(found, halted_at=position)) if found.halted else None
