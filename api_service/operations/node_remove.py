"""Forget a node; a lost one together with the records of all that was on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.network_spread import release_slices
from api_service.records.event_shapes import (
    container_event,
    image_event,
    network_life_event,
    node_event,
    volume_event,
)
from api_service.records.node import NodeRecord, NodeState
from api_service.records.node_repository import no_such_node
from common.errors import Aborted, FailedPrecondition, SlipwayError

_MAX_ATTEMPTS = 16
_MAX_SHOWN = 5
_ANSWER_TIME = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """Names, of what was on the node."""

    containers: Sequence[str]
    volumes: Sequence[str]
    networks: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.containers or self.volumes or self.networks)


async def remove_node(engine: Engine, name: str, *, force: bool, deadline: Deadline) -> Forgotten:
    """Raises NotFound, FailedPrecondition for one that is in use (`NODE_IN_USE`), that answers although it is to be
    forgotten by force (`NODE_READY`), and for the one of the service's settings (`NODE_CONFIGURED`)."""
    node = await engine.node_records.find(name)
    dealt_with = engine.nodes.find(name)
    if dealt_with is not None and dealt_with.record.configured:
        why = "is the one this service is configured with; start the service with --executor none to have no such node"
        raise _refused(node, why, "NODE_CONFIGURED")
    return await engine.jobs.finish(_remove(engine, node, force=force, deadline=deadline), name=f"remove node {name}")


async def _remove(engine: Engine, node: NodeRecord, *, force: bool, deadline: Deadline) -> Forgotten:
    # The claim tells that somebody is at it: a mark without one is taken back (see `take_back_removal`).
    async with deadline.enforced(f"remove node {node.name!r}"), engine.claims.hold(_claim(node.name), note="remove"):
        # First the mark, for which no commit that puts something on the node goes through any more: whatever did is
        # seen below.
        await _mark(engine, node, removing=True)
        try:
            used = await _used(engine, node)
            if used:
                await _refuse(engine, node, used, force=force)
                await _forget(engine, node)
            await _forget_images(engine, node)
            await engine.moves.forget(node.name)
            await release_slices(engine, node.name)
            await _delete(engine, node)
        except BaseException:
            await _mark(engine, node, removing=False)
            raise
        return used


async def take_back_removal(engine: Engine, node: Node) -> None:
    """The mark of one that ended in the middle, with its service or with the store: it would keep containers away for
    good. To be called again and again. Raises Unavailable."""
    if node.record.removing:
        async with engine.claims.try_hold(_claim(node.name)) as claim:
            if claim is not None:
                await _mark(engine, node.record, removing=False)


async def _mark(engine: Engine, node: NodeRecord, *, removing: bool) -> None:
    changed = await engine.node_records.update(node.name, lambda found: dataclasses.replace(found, removing=removing))
    if changed is None and removing:
        raise no_such_node(node.name)


async def _used(engine: Engine, node: NodeRecord) -> Forgotten:
    return Forgotten(
        containers=[each.name for each in await engine.containers.on_node(node.name)],
        volumes=[each.name for each in await engine.volumes.all() if each.node == node.name],
        networks=[each.name for each in await engine.networks.every_phase() if each.node == node.name],
    )


async def _refuse(engine: Engine, node: NodeRecord, used: Forgotten, *, force: bool) -> None:
    if not force:
        kinds = {"containers": used.containers, "volumes": used.volumes, "networks": used.networks}
        shown = "; ".join(f"{kind} {_shown(names)}" for kind, names in kinds.items() if names)
        why = f"has {shown}; remove them first, or use force when the node is lost for good"
        raise _refused(node, why, "NODE_IN_USE")
    if await _answers(engine, node):
        why = "answers, so what is on it can be removed and is not forgotten by force; remove it, or stop the executor"
        raise _refused(node, why, "NODE_READY")


async def _answers(engine: Engine, record: NodeRecord) -> bool:
    """One that is lost may: what runs there is followed while something keeps it from its lease."""
    node = engine.nodes.find(record.name)
    if node is None or record.status.state is not NodeState.LOST:
        return record.status.state is NodeState.READY
    try:
        facts = await node.executor.facts(deadline=Deadline.after(_ANSWER_TIME))
    except SlipwayError:
        return False
    return facts.node_id == record.executor_id


async def _forget(engine: Engine, node: NodeRecord) -> None:
    now = engine.clock
    for container in await engine.containers.on_node(node.name):
        await engine.execs.forget(container.id)
        # What may run elsewhere may leave it just now.
        await engine.containers.delete(
            container.id, lambda last: container_event(last, "destroy", now()), on_node=node.name
        )
    for volume in await engine.volumes.all():
        if volume.node == node.name:
            await engine.volumes.delete(volume.name, lambda last: volume_event(last, "destroy", now()))
    for network in await engine.networks.every_phase():
        if network.node == node.name:
            await engine.networks.delete(network.id, [network_life_event(network, "destroy", now())])


async def _forget_images(engine: Engine, node: NodeRecord) -> None:
    """Images that others have stay; those that only this node had are gone with it."""
    async with engine.image_changes:
        for image in await engine.images.all():
            if node.name not in image.nodes:
                continue
            if others := tuple(each for each in image.nodes if each != node.name):
                await engine.images.set_nodes(image.id, others)
            else:
                await engine.images.delete(image.id, [image_event(image, "delete", engine.clock())])


async def _delete(engine: Engine, node: NodeRecord) -> None:
    for _ in range(_MAX_ATTEMPTS):
        stored = await engine.node_records.get(node.name)
        if stored is None:
            return
        if not stored.record.removing:  # another service took us for dead, and something may be there again
            raise Aborted(f"node {node.name!r}: its removal took so long that it was taken back; repeat the request")
        if await engine.node_records.delete(stored, [node_event(stored.record, "remove", engine.clock())]):
            return
    raise Aborted(f"node {node.name!r}: others change its record all the time; repeat the request")


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else ""
    return ", ".join(sorted(names)[:_MAX_SHOWN]) + more


def _refused(node: NodeRecord, why: str, reason: str) -> FailedPrecondition:
    return FailedPrecondition(f"node {node.name!r} {why}", resource_type="node", resource_name=node.name, reason=reason)


def _claim(node: str) -> str:
    return f"removal/{node}"
