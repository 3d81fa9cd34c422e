"""Execs that are said to run, compared with what their node says: an answer may have been lost, or this service killed
between the record and the call."""

from __future__ import annotations

import dataclasses
from collections.abc import Set

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.operations.abandoned import alive, is_abandoned
from api_service.operations.engine import Engine
from api_service.records.container import JournalPosition
from api_service.records.exec import ExecRecord

_CALL_TIME = 60.0  # seconds
_PATIENCE = 30.0  # seconds for what the journal has to tell before the node's word counts
_UNSEEN = "the node no longer knows how it ended"


async def settle_execs(engine: Engine, node: Node) -> None:
    """One that the node does not know, and whose end the journal has not told, has ended unseen; one that never had a
    pid has never run and can be started again. Raises Unavailable: the node's next contact settles it."""
    running = await engine.execs.running()
    if not running:
        return
    replicas = await alive(engine)
    said = [record for record in running if record.pid != 0 or _is_left(engine, record, replicas)]
    if not said:
        return
    snapshot = await node.executor.snapshot(deadline=Deadline.after(_CALL_TIME))
    position = JournalPosition(journal_id=snapshot.journal_id, sequence=snapshot.sequence)
    if not await node.follower.told(position, patience=_PATIENCE):
        return
    known = {exec_id for container in snapshot.containers for exec_id in container.execs}
    here = {record.id for record in await engine.containers.on_node(node.name)}
    for record in said:
        if record.container_id in here and record.id not in known:
            await _settle(engine, record)


def _is_left(engine: Engine, record: ExecRecord, replicas: Set[str]) -> bool:
    """It is taken, and who took it does not wait for the node's answer any more."""
    return is_abandoned(engine, record.starter, replicas, under_way=record.id in engine.starting_execs)


async def _settle(engine: Engine, record: ExecRecord) -> None:
    def change(found: ExecRecord) -> ExecRecord | None:
        if not found.running or found.started_at != record.started_at:
            return None
        if found.pid == 0:
            return dataclasses.replace(found, started_at=None)
        return dataclasses.replace(found, pid=0, finished_at=engine.clock(), error=_UNSEEN)

    await engine.execs.update(record.id, change)
