"""What who follows a node does for its containers that may run elsewhere: they leave a node that is lost or to be
drained, and go on where they have come to."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.operations.container_move import find_place, finish_move, may_move, move_container
from api_service.operations.container_start import start_again
from api_service.operations.container_state import current
from api_service.operations.container_stop import stop_locked
from api_service.operations.engine import Engine
from api_service.operations.node_remove import take_back_removal
from api_service.records.container import ContainerRecord
from api_service.records.container_repository import Changed
from api_service.records.node import Availability, NodeState
from common.errors import SlipwayError

_log = structlog.get_logger(__name__)

_CALL_TIME = 60.0  # seconds
_AT_ONCE = 8  # containers

_Work = Callable[[Engine, ContainerRecord], Awaitable[None]]


async def tend_forever(engine: Engine, node: Node, clear: Callable[[], Awaitable[None]], *, every: float) -> None:
    """`clear` removes what must not run there. `every`: seconds between looks. One that fails is looked at again."""
    while True:
        await asyncio.sleep(every)
        try:
            await take_back_removal(engine, node)
            if node.follower.connected:
                await _clear(node, clear)
            alone = engine.nodes.sole() is not None
            leaving = node.record.availability is Availability.DRAINED and node.follower.connected and not alone
            if leaving:
                await _each(engine, node, _drain)
            if leaving or node.record.status.state is not NodeState.LOST:
                await _finish_moves(engine, node, leaving=leaving)
        except SlipwayError as error:
            _log.warning("node not tended", node=node.name, error=error.message)


async def _clear(node: Node, clear: Callable[[], Awaitable[None]]) -> None:
    """Nothing else waits for what cannot be removed."""
    try:
        await clear()
    except SlipwayError as error:
        _log.warning("node not cleared", node=node.name, error=error.message)


async def leave_lost_node(engine: Engine, node: Node) -> None:
    """Only when nothing that is marked can run there any more."""
    await _each(engine, node, _leave)


def revive(engine: Engine, node: Node, record: ContainerRecord) -> None:
    """One that its node has killed because the lease was over, and that is the node's still, is to run again there."""
    if record.state.lease_over and may_move(record):
        engine.jobs.background(node.put_right(partial(_revive, engine, record)), name=f"revive {record.name}")


async def _revive(engine: Engine, record: ContainerRecord) -> None:
    deadline = Deadline.after(_CALL_TIME)
    while True:
        stored = await engine.containers.get(record.id)
        if stored is None or stored.record.node != record.node or not stored.record.state.lease_over:
            return
        try:
            await start_again(engine, stored.record, deadline)
            return
        except SlipwayError as error:
            if error.reason != "LEASE_OVER" or not deadline.remaining:
                raise
        await asyncio.sleep(1)


async def _each(engine: Engine, node: Node, work: _Work) -> None:
    """One that cannot go keeps no other."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(record: ContainerRecord) -> None:
        async with room:
            try:
                await work(engine, record)
            except SlipwayError as error:
                _log.warning("container stays", container=record.name, node=node.name, error=error.message)

    records = [each for each in await engine.containers.on_node(node.name) if may_move(each)]
    await asyncio.gather(*map(one, records))


async def _leave(engine: Engine, record: ContainerRecord) -> None:
    await move_container(engine, record.id)


async def _drain(engine: Engine, record: ContainerRecord) -> None:
    """It is stopped only when there is a place for it; then it is on record that it goes on."""
    await find_place(engine, record)
    if not record.moving and not await _mark(engine, record):
        return
    await engine.jobs.finish(_stop(engine, record), name=f"stop {record.name} to move it")
    await move_container(engine, record.id)


async def _stop(engine: Engine, record: ContainerRecord) -> None:
    deadline = Deadline.after(_CALL_TIME)
    async with engine.locks.hold(record.id, "move", deadline), deadline.enforced("stop the container"):
        found = await current(engine, record.id)
        if found.state.active and may_move(found):
            await stop_locked(engine, found, signal=None, timeout=None, deadline=deadline)


async def _mark(engine: Engine, record: ContainerRecord) -> bool:
    """False when somebody changes it at the same time: then the next look decides anew."""
    stored = await engine.containers.get(record.id)
    if stored is None or not may_move(stored.record):
        return False
    marked = Changed(record=dataclasses.replace(stored.record, moving=True))
    return await engine.containers.replace(stored, marked, engine.moves.begin(record.id))


async def _finish_moves(engine: Engine, node: Node, *, leaving: bool) -> None:
    """`leaving`: what may move does not end here."""
    for container_id in await engine.moves.under_way():
        stored = await engine.containers.get(container_id)
        if stored is not None and (stored.record.node != node.name or (leaving and may_move(stored.record))):
            continue
        try:
            await finish_move(engine, container_id)
        except SlipwayError as error:
            _log.warning("move not finished", container=container_id[:12], node=node.name, error=error.message)
