"""What a new executor does with what the one before left, before it serves.

Containers that ran are watched again: the ones that still run go on, the ones that ended meanwhile have their exit
code read. Everything else that is found is half done or nobody's and is removed, each container by itself and under
its lock, so a stuck one delays nobody, and a call for it waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import structlog

from common.errors import SlipwayError
from executor_service.journal import Exited
from executor_service.node import Node
from executor_service.operations.container_remove import remove_locked
from executor_service.operations.start_recovery import recover_start
from executor_service.records import ContainerRecord, Phase
from executor_service.resource_use import volumes_of
from executor_service.tasks import Operations, bounded

_log = structlog.get_logger(__name__)

_REBOOTED = "the machine was restarted, so nobody saw the exit code"


async def adopt(node: Node, operations: Operations) -> None:
    """Call it once, after the records are loaded and before anything is served."""
    records = node.records.all()
    running = [record for record in records if record.phase.has_process]
    alive = [record for record in running if record.run is not None and record.run.boot_id == node.boot_id]
    broken = {record.id for record in records if record.phase is Phase.BROKEN}
    await node.seams.network.reconcile({record.id for record in alive} | broken)
    await node.seams.mounts.adopt(_volume_holders(alive))
    for record in alive:
        assert record.run is not None
        assert record.spec is not None
        node.supervisor.watch(record.spec, record.run)
    for record in running:
        if record not in alive:
            await _rebooted(node, record)
    bundles = await node.seams.bundles.list_bundles()
    for record in records:
        if record.removing or not (record in alive or record.id in broken):
            operations.start(_put_right(node, record.id, left_bundle=record.id in bundles))
    known = bundles | await node.seams.bundles.list_files() | await node.seams.snapshots.list()
    orphans = {container_id for container_id in known if node.records.find(container_id) is None}
    for container_id in orphans:
        operations.start(_remove_orphan(node, container_id))
    # Each of them takes its container's lock in its first turn, before any call can.
    await asyncio.sleep(0)
    _log.info(
        "adopted",
        containers=len(records),
        running=len(alive),
        broken=len(broken),
        orphans=len(orphans),
        journal=node.journal.id,
    )


def _volume_holders(running: Iterable[ContainerRecord]) -> dict[str, set[str]]:
    """Ids of the containers by the volumes that they have mounted."""
    holders: dict[str, set[str]] = {}
    for record in running:
        for name in volumes_of(record.spec) if record.spec is not None else ():
            holders.setdefault(name, set()).add(record.id)
    return holders


async def _rebooted(node: Node, record: ContainerRecord) -> None:
    start_id = record.run.start_id if record.run else ""
    event = Exited(start_id=start_id, exit_code=None, error=_REBOOTED)
    await node.records.transition(record.id, event, time_ns=time.time_ns(), phase=Phase.STOPPED, run=None)


async def _put_right(node: Node, container_id: str, *, left_bundle: bool) -> None:
    """Finish what was being done to a container, and undo what a run that is over has left."""
    async with node.locks.hold_patiently(container_id):
        record = node.records.find(container_id)
        if record is None:
            return
        if left_bundle:
            node.cleanup.expect(container_id, runtime=record.spec.runtime if record.spec else "")
        try:
            if record.removing:
                await remove_locked(node, container_id)
            elif not record.phase.has_process:
                await recover_start(node, record)
                await node.cleanup.settle(container_id)
                # A root can be mounted before its start is on record.
                await node.seams.snapshots.unmount(container_id)
        except SlipwayError as error:
            _log.error("container cannot be put right", container=container_id, error=error.message)


async def _remove_orphan(node: Node, container_id: str) -> None:
    """Nobody has a record of it: a crash in the middle of a create, or lost state."""
    async with node.locks.hold_patiently(container_id):
        if node.records.find(container_id) is not None:
            return
        _log.warning("orphan removed: no record names it", container=container_id)
        node.cleanup.expect(container_id, runtime="")
        try:
            await node.cleanup.settle(container_id)
        except SlipwayError as error:
            _log.error("orphan stays", container=container_id, error=error.message)
            return
        seams, limit = node.seams, node.limits.undo_step
        await bounded("layer", lambda: seams.snapshots.remove(container_id), timeout=limit, container=container_id)
        await bounded("files", lambda: seams.bundles.remove_files(container_id), timeout=limit, container=container_id)
