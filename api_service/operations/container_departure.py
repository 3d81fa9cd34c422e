"""What a container has left on a node that it moved away from, and its removal there, also when it comes back.

As long as it is on record that the container left the node, whatever the node has of it is of before. So nothing of a
container that came back is made there before that is gone; who removes it and who makes it anew take turns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.node_leftovers import Leftovers
from api_service.records.codec import RECORD_UNREADABLE
from common.errors import Internal

_CALL_TIME = 60.0  # seconds


async def remove_departed(engine: Engine, node: Node, left: Leftovers) -> None:
    """What the containers that left the node have left there. What cannot be removed stays on record, for the next
    time. Raises Aborted, Unavailable, DeadlineExceeded."""
    for container_id in await engine.moves.departed(node.name):
        with left.removing(container_id):
            async with nothing_left(engine, node, container_id, "remove", Deadline.after(_CALL_TIME)):
                pass


async def remove_strays(engine: Engine, node: Node, left: Leftovers) -> None:
    """What is another node's, of what a node that was taken in brings along: it was one before, and that they have left
    it was forgotten with it. Raises Aborted, Unavailable, DeadlineExceeded."""
    if not node.record.fresh:
        return
    executor_id = (await node.executor.facts(deadline=Deadline.after(_CALL_TIME))).node_id
    snapshot = await node.executor.snapshot(deadline=Deadline.after(_CALL_TIME))
    for container in snapshot.containers:
        if await _is_elsewhere(engine, executor_id, container.container_id):
            deadline = Deadline.after(_CALL_TIME)
            with left.removing(container.container_id):
                async with engine.departures.hold(container.container_id, "remove", deadline):
                    if await _is_elsewhere(engine, executor_id, container.container_id):
                        await node.executor.containers.remove(container.container_id, deadline=deadline)
    if left.any:
        return  # it is looked again
    looked = await engine.node_records.update(node.name, lambda found: dataclasses.replace(found, fresh=False))
    node.record = looked or node.record


async def _is_elsewhere(engine: Engine, executor_id: str, container_id: str) -> bool:
    """By the executor, not by the name: settings may give a node another one, and then all that it runs is of the node
    that it was."""
    try:
        stored = await engine.containers.get(container_id)
    except Internal as error:
        if error.reason != RECORD_UNREADABLE:
            raise
        return False  # and keeps the node from nothing
    holder = await engine.node_records.get(stored.record.node) if stored is not None else None
    return holder is not None and holder.record.executor_id not in ("", executor_id)


@asynccontextmanager
async def nothing_left(
    engine: Engine, node: Node, container_id: str, verb: str, deadline: Deadline
) -> AsyncIterator[None]:
    """Within the block the node has nothing of the container but what the block makes there. It is not the lock of the
    container's verbs, for which one of them may wait without end while the node cannot be used."""
    async with engine.departures.hold(container_id, verb, deadline):
        if (departure := await engine.moves.departure(node.name, container_id)) is not None:
            await node.executor.containers.remove(container_id, deadline=deadline)
            await engine.moves.removed(departure)
        yield
