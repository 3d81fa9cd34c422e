"""Move a container to another node: away from one that is lost, or that is to be drained.

Its record goes over in one commit, and from that moment the old node has nothing to say of it. It is laid out and
started where it is now by who follows that node; what is left on the old node is removed there before anything else
when it answers again.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import structlog

from api_service.deadline import UPLOAD_DEADLINE, Deadline
from api_service.nodes.registry import Node
from api_service.operations.container_departure import nothing_left
from api_service.operations.container_halt import stay
from api_service.operations.container_placement import NodeTakenError, booked, booking_of
from api_service.operations.container_spec import container_spec
from api_service.operations.container_start import start_locked
from api_service.operations.container_state import current
from api_service.operations.engine import Engine
from api_service.operations.host_facts import host_facts
from api_service.operations.image_pull import PullRequest, pull_image
from api_service.operations.network_spread import spread_to
from api_service.operations.node_choice import choose_node
from api_service.operations.volume_create import ensure_on_node
from api_service.placement.constraints import parse_constraint
from api_service.placement.place import Demand
from api_service.records.config import ON_NODE_LOSS
from api_service.records.container import ContainerRecord, ContainerState, JournalPosition, ObservedNetwork, Phase
from api_service.records.container_repository import Changed
from api_service.records.event_shapes import container_event, volume_event
from api_service.records.mount import MountPoint, MountType
from api_service.records.network import DEFAULT_NETWORK
from api_service.records.volume import VolumeRecord
from api_service.validation.namespace_modes import joined_container
from api_service.validation.network_mode import has_networks, joined_network
from api_service.validation.remapped_users import is_remapped
from common.errors import Aborted, FailedPrecondition, StartFailed

_log = structlog.get_logger(__name__)

_ATTEMPTS = 8  # each failure means that somebody else changed the record or took the room
_LAY_OUT_TIME = 120.0  # seconds


def may_move(record: ContainerRecord) -> bool:
    """Whether it is to run, and may do so elsewhere."""
    wanted = record.state.active or record.state.lease_over or record.moving
    marked = record.host_config.reschedule == ON_NODE_LOSS
    return record.phase is Phase.READY and marked and wanted and not record.halted


async def find_place(engine: Engine, record: ContainerRecord) -> Node:
    """Another node than its own. Raises FailedPrecondition and ResourceExhausted (`NO_NODE_FITS`)."""
    demand = await _demand(engine, record)
    return await choose_node(engine, demand, subject=f"container {record.name!r}", without=record.node)


async def move_container(engine: Engine, container_id: str) -> ContainerRecord | None:
    """The record as it is on its new node; None: it is not to move any more. Raises as `find_place`, Aborted."""
    for _ in range(_ATTEMPTS):
        stored = await engine.containers.get(container_id)
        if stored is None or not may_move(stored.record):
            return None
        before = stored.record
        node = await find_place(engine, before)
        points, volumes = await _own_volumes(engine, before, node.name)
        after = dataclasses.replace(
            before,
            node=node.name,
            moving=True,
            state=ContainerState(),
            network=ObservedNetwork(),
            observed=JournalPosition(),
            mount_points=points,
            booked=booking_of(before.host_config, ports=has_networks(before.host_config.network_mode)),
        )
        event = container_event(after, "move", engine.clock(), **{"node.old": before.node, "node.new": node.name})
        made = [volume_event(volume, "create", engine.clock()) for volume in volumes]
        try:
            async with booked(engine, after) as booking:
                besides = [
                    *booking,
                    *await engine.usages.released(before.node, before.booked),
                    *engine.volumes.new(volumes),
                    *engine.moves.begin(before.id),
                    *engine.moves.leave(before.id, before.node),
                ]
                moved = await engine.containers.replace(stored, Changed(record=after, events=[*made, event]), besides)
        except NodeTakenError:
            continue
        if moved:
            await engine.execs.lose(after.id, f"the container was moved away from node {before.node!r}")
            _log.warning("container moved", container=after.name, old=before.node, new=after.node)
            return after
    raise Aborted(f"container {container_id[:12]}: others change it, or take the room, all the time")


async def finish_move(engine: Engine, container_id: str) -> None:
    """Lay it out where it is now, and start it unless it was halted. Whatever is done already is not done again. Raises
    what that raises."""
    move = await engine.moves.move(container_id)
    stored = await engine.containers.get(container_id)
    if stored is not None and stored.record.moving and stored.record.phase is Phase.READY:
        node = engine.nodes.get(stored.record.node)
        await _bring_image(engine, stored.record, node)
        deadline = Deadline.after(_LAY_OUT_TIME)
        async with engine.locks.hold(container_id, "move", deadline), deadline.enforced("move the container"):
            await _lay_out(engine, await current(engine, container_id), node, deadline)
    if move is not None:
        await engine.moves.arrived(move)


async def _lay_out(engine: Engine, record: ContainerRecord, node: Node, deadline: Deadline) -> None:
    if record.node != node.name or not record.moving or record.phase is not Phase.READY:
        return
    if not record.state.active:
        for name in _volumes(record.mount_points):
            await ensure_on_node(engine, name, deadline)
        networks = [settings.network_id for settings in record.networking_config.endpoints.values()]
        await spread_to(engine, networks, node, deadline)
        remapped = is_remapped(record.host_config, host_facts(await node.facts(deadline)))
        async with nothing_left(engine, node, record.id, "lay out", deadline):
            await node.executor.containers.create(container_spec(record, remapped=remapped), deadline=deadline)
        if not record.halted:
            await _start(engine, record, deadline)
    await stay(engine, record)


async def _start(engine: Engine, record: ContainerRecord, deadline: Deadline) -> None:
    try:
        await start_locked(engine, record, deadline)
    except StartFailed as error:
        _log.warning("moved container not started", container=record.name, error=error.message)


async def _bring_image(engine: Engine, record: ContainerRecord, node: Node) -> None:
    """Raises FailedPrecondition for one that came from no registry."""
    image = await engine.images.get(record.image_id)
    if image is None or node.name in image.nodes:
        return
    if not image.digests:
        raise FailedPrecondition(
            f"container {record.name!r}: node {node.name!r} has not the image {record.image_id}, which came from no "
            "registry; load it there",
            resource_type="image",
            resource_name=record.image_id,
            reason="IMAGE_ELSEWHERE",
        )
    request = PullRequest(reference=image.digests[0], node=node.name)
    async with aclosing(pull_image(engine, request, deadline=Deadline.after(UPLOAD_DEADLINE))) as answers:
        async for _ in answers:
            pass


async def _demand(engine: Engine, record: ContainerRecord) -> Demand:
    host = record.host_config
    os, _, architecture = record.platform.partition("/")
    image = await engine.images.get(record.image_id)
    local = image is not None and not image.digests
    return Demand(
        booking=booking_of(host, ports=has_networks(host.network_mode)),
        constraints=tuple(map(parse_constraint, host.placement.constraints)),
        os=os,
        architecture=architecture,
        runtime=host.runtime,
        holders=frozenset(image.nodes) if image is not None and local else None,
        only=await anext(_bound(engine, record), None),
        pack=host.placement.pack,
    )


async def _bound(engine: Engine, record: ContainerRecord) -> AsyncIterator[tuple[str, str]]:
    """What holds it where it is: files, networks and containers that do not move along."""
    host = record.host_config
    for point in record.mount_points:
        if point.type is MountType.VOLUME and not point.anonymous:
            volume = await engine.volumes.get(point.source)
            yield (volume.record.node if volume else record.node), f"volume {point.source!r} is"
    for name, settings in record.networking_config.endpoints.items():
        network = await engine.networks.get(settings.network_id) if settings.network_id != DEFAULT_NETWORK else None
        if network is not None and network.record.is_local:
            yield network.record.node, f"network {name!r} is"
    modes = [joined_container(host.ipc_mode), joined_container(host.pid_mode), joined_network(host.network_mode)]
    for joined in filter(None, modes):
        other = await engine.containers.get(joined)
        yield (other.record.node if other else record.node), f"container {joined[:12]!r} is"


def _volumes(points: Sequence[MountPoint]) -> list[str]:
    return list(dict.fromkeys(point.source for point in points if point.type is MountType.VOLUME))


async def _own_volumes(
    engine: Engine, record: ContainerRecord, node: str
) -> tuple[tuple[MountPoint, ...], list[VolumeRecord]]:
    """Its anonymous volumes stay behind, and it gets new ones."""
    names = {point.source: secrets.token_hex(32) for point in record.mount_points if point.anonymous}
    made: list[VolumeRecord] = []
    for old, new in names.items():
        before = await engine.volumes.get(old)
        draft = VolumeRecord(name=new, created_at=engine.clock(), node=node, anonymous=True, made_for=record.id)
        if before is not None:
            draft = dataclasses.replace(draft, options=before.record.options, labels=before.record.labels)
        made.append(draft)
    points = (
        dataclasses.replace(point, source=names[point.source]) if point.anonymous else point
        for point in record.mount_points
    )
    return tuple(points), made
