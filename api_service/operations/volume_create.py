"""Make a volume."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.mount_plan import ANONYMOUS_LABELS
from api_service.operations.node_choice import named_node
from api_service.records.event_shapes import volume_event
from api_service.records.mount import VolumeDriver
from api_service.records.node_repository import NodeGoing
from api_service.records.volume import VolumeRecord
from api_service.records.volume_repository import VolumeRepository, contended
from api_service.validation.volumes import validate_driver
from common.errors import Aborted, AlreadyExists, InvalidArgument, SlipwayError

_log = structlog.get_logger(__name__)

_MAX_ATTEMPTS = 16
_TAKE_BACK_TIME = 10.0  # seconds
_PLACEMENTS = 8  # each failure means that the node is being removed


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRequest:
    """`name`: empty for a random one; `node`: for one that is chosen."""

    name: str
    driver: VolumeDriver
    labels: Mapping[str, str]
    node: str = ""


async def create_volume(engine: Engine, request: VolumeRequest, *, deadline: Deadline) -> VolumeRecord:
    """One that exists with the same driver and options is returned as it is. Raises InvalidArgument, AlreadyExists,
    FailedPrecondition when no node can take it, Unavailable."""
    if broken := validate_driver(request.driver, "driver"):
        raise InvalidArgument(violations=broken)
    for _ in range(_PLACEMENTS):
        try:
            return await _create_on(engine, request, await _node(engine, request), deadline)
        except NodeGoing:
            if request.node:
                raise
    raise Aborted("the volume: every node it is placed on is being removed; repeat the request")


async def _create_on(engine: Engine, request: VolumeRequest, node: Node, deadline: Deadline) -> VolumeRecord:
    """Raises NodeGoing."""
    wanted = VolumeRecord(
        name=request.name or secrets.token_hex(32),
        created_at=engine.clock(),
        node=node.name,
        options=dict(request.driver.options),
        labels={**(ANONYMOUS_LABELS if not request.name else {}), **request.labels},
        anonymous=not request.name,
    )
    # Neither a removal nor the adoption of what is found on the node may come between the node and the record.
    async with (
        engine.volume_locks.hold(wanted.name, "create", deadline),
        deadline.enforced(f"create volume {wanted.name!r}"),
    ):
        for _ in range(_MAX_ATTEMPTS):
            if (known := await _known(engine.volumes, wanted)) is not None:
                return known
            created = await node.executor.volumes.create(wanted.name, wanted.options, deadline=deadline)
            made = replace(wanted, mountpoint=created.volume.mountpoint)
            try:
                if await engine.volumes.add(made, [volume_event(made, "create", engine.clock())]):
                    return made
            except NodeGoing:
                if created.made:  # what was there without a record is somebody's, and never deleted
                    await _take_back(engine, node, wanted.name)
                raise
    raise contended(wanted.name)


async def _take_back(engine: Engine, node: Node, name: str) -> None:
    """Over a connection of its own: the node may be none of ours any more."""
    try:
        async with engine.dial(node.record) as executor:
            executor.meant_for(node.record.executor_id)
            await executor.volumes.remove(name, deadline=Deadline.after(_TAKE_BACK_TIME))
    except SlipwayError as error:
        _log.warning("volume left on a node that was removed", volume=name, node=node.name, error=error.message)


async def _node(engine: Engine, request: VolumeRequest) -> Node:
    """Where it is, if it is there: then it is returned as it is."""
    known = await engine.volumes.get(request.name) if request.name else None
    if known is not None and request.node in ("", known.record.node):
        return engine.nodes.get(known.record.node)
    return await named_node(engine, request.node, subject=f"volume {request.name!r}" if request.name else "the volume")


async def ensure_on_node(engine: Engine, name: str, deadline: Deadline) -> None:
    """Make the volume of a record on its node, if it is not there, and note where that is."""
    volume = await engine.volumes.find(name)
    executor = engine.nodes.get(volume.node).executor
    stored = (await executor.volumes.create(name, volume.options, deadline=deadline)).volume
    if volume.mountpoint != stored.mountpoint:
        await engine.volumes.update(name, lambda found: replace(found, mountpoint=stored.mountpoint))


async def _known(volumes: VolumeRepository, wanted: VolumeRecord) -> VolumeRecord | None:
    """The volume of that name, which from now on is somebody's own."""
    found = await volumes.update(wanted.name, lambda found: replace(found, made_for=""))
    if found is None:
        return None
    if found.removing:
        why = "is being removed; repeat the request when it is gone"
    elif found.node != wanted.node:
        why = f"is on node {found.node!r}; leave the node out to use that, or choose another name"
    elif dict(found.options) != dict(wanted.options):
        why = f"exists with the driver options {dict(found.options)}; remove it first, or choose another name"
    else:
        return found
    raise AlreadyExists(
        f"volume {wanted.name!r} {why}", resource_type="volume", resource_name=wanted.name, reason="VOLUME_EXISTS"
    )
