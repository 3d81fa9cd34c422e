"""What has to be put right of the volumes when a node answers again: removals that were cut off, and volumes that no
record tells of."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.volumes import StoredVolume
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.volume_use import remove_unused
from api_service.records.volume import VolumeRecord
from api_service.validation.volumes import is_volume_name

_log = structlog.get_logger(__name__)

_CALL_TIME = 60.0  # seconds
_RANDOM_NAME = re.compile(r"[0-9a-f]{64}")


async def sweep_volumes(engine: Engine, node: Node) -> None:
    """Removals are finished. What the node has and no record tells of is somebody's, whose records were lost: it is
    shown, and never deleted."""
    known = await engine.volumes.all()
    for volume in known:
        if volume.removing and volume.node == node.name:
            finish = remove_unused(engine, volume.name, Deadline.after(_CALL_TIME))
            engine.jobs.background(_finish(finish), name=f"finish removal of volume {volume.name}")
    unknown = await _stored(node) - {volume.name for volume in known}
    for name in sorted(unknown):
        if not is_volume_name(name):
            _log.error("volume on a node not adopted: it has no name of one", node=node.name, volume=name[:100])
            continue
        async with engine.volume_locks.hold(name, "adopt", Deadline.after(_CALL_TIME)):
            await _adopt(engine, node, name)


async def _finish(removal: Coroutine[Any, Any, int]) -> None:
    await removal


async def _adopt(engine: Engine, node: Node, name: str) -> None:
    # Looked at again: what was just being made may have been taken back.
    for stored in await node.executor.volumes.list(size=False, deadline=Deadline.after(_CALL_TIME)):
        if stored.name == name:
            await engine.volumes.add(_record(engine, node, stored), [])


async def _stored(node: Node) -> set[str]:
    volumes = await node.executor.volumes.list(size=False, deadline=Deadline.after(_CALL_TIME))
    return {volume.name for volume in volumes}


def _record(engine: Engine, node: Node, stored: StoredVolume) -> VolumeRecord:
    return VolumeRecord(
        name=stored.name,
        created_at=engine.clock(),
        node=node.name,
        options=dict(stored.options),
        mountpoint=stored.mountpoint,
        anonymous=_RANDOM_NAME.fullmatch(stored.name) is not None,
    )
