"""What a new executor does with what the one before left, before it serves.

Containers that ran are watched again: the ones that still run go on, the ones that ended meanwhile have their exit
code read. Restarts that were pending are pending again, and after a restart of the machine the restart policies decide
what is started. Everything else that is found is half done or nobody's and is removed, each container by itself and
under its lock, which a call for it waits for. It is done to some at a time; those that are stuck delay the others only
for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog

from common.errors import SlipwayError
from executor_service.container import EndpointSpec, NetworkMode
from executor_service.container_record import ContainerRecord, Phase
from executor_service.journal_entries import Exited, Updated
from executor_service.network.sandbox import Sandbox
from executor_service.node import Node
from executor_service.operations.container_pause import align_freezer
from executor_service.operations.container_remove import remove_locked
from executor_service.operations.port_targets import lead_ports, passes_host
from executor_service.operations.start_recovery import recover_start
from executor_service.records import Change
from executor_service.resource_use import volumes_of
from executor_service.restart import RestartState
from executor_service.supervision.boot import last_boot, remember_boot
from executor_service.supervision.restart_decision import End, after_boot
from executor_service.tasks import Operations, bounded

_log = structlog.get_logger(__name__)

_TOGETHER = 16  # each may run the OCI runtime and unmount: more are no faster, and keep calls from their turn
_PATIENCE = 30.0  # seconds that one waits for its turn
_REBOOTED = "the machine was restarted, so nobody saw the exit code"


async def adopt(node: Node, operations: Operations) -> None:
    """Call it once, after the records are loaded and before anything is served."""
    records = node.records.all()
    known_boot = await last_boot(node.seams.database)
    running = [record for record in records if record.phase.has_process]
    alive = [record for record in running if record.run is not None and record.run.boot_id == node.boot_id]
    broken = {record.id for record in records if record.phase is Phase.BROKEN}
    await _adopt_network(node, alive, broken=broken, known={record.id for record in records})
    await node.seams.mounts.adopt(_volume_holders(alive))
    for record in alive:
        assert record.run is not None
        assert record.spec is not None
        node.execs.adopt(record.id, node.paths.bundle(record.id))
        node.supervisor.watch(record.spec, record.run)
        operations.start(align_freezer(node, record))
    for record in running:
        if record not in alive:
            await _rebooted(node, record)
    if known_boot != node.boot_id:
        if known_boot:
            await _restart_after_boot(node)
        # Only now: an executor that is killed before has decided nothing for good.
        await remember_boot(node.seams.database, node.boot_id)
    bundles = await node.seams.bundles.list_bundles()
    turns = asyncio.Semaphore(_TOGETHER)
    for record in records:
        if record.removing or not (record in alive or record.id in broken):
            operations.start(_put_right(node, record.id, turns, left_bundle=record.id in bundles))
    for record in node.records.all():
        if record.phase is Phase.RESTARTING and not record.removing and record.restart.next_start is not None:
            node.restarts.set(record.id, record.restart.next_start)
    known = bundles | await node.seams.bundles.list_files() | await node.seams.snapshots.list()
    orphans = {container_id for container_id in known if node.records.find(container_id) is None}
    for container_id in orphans:
        operations.start(_remove_orphan(node, container_id, turns))
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


async def _adopt_network(
    node: Node, alive: Sequence[ContainerRecord], *, broken: Collection[str], known: Collection[str]
) -> None:
    await node.seams.network.reconcile(_members(alive) | dict.fromkeys(broken))
    sandboxes = {sandbox.id: sandbox for sandbox in await node.seams.network.list()}
    await _answer_names(node, alive, sandboxes)
    await node.seams.ports.reconcile(running={record.id for record in alive}.union(broken), known=known)
    for record in alive:
        if record.id in sandboxes:
            await _publish_as_recorded(node, record, sandboxes[record.id])


def _members(running: Iterable[ContainerRecord]) -> dict[str, Sequence[EndpointSpec] | None]:
    return {record.id: record.spec.endpoints for record in running if record.spec is not None}


async def _answer_names(node: Node, running: Iterable[ContainerRecord], sandboxes: Mapping[str, Sandbox]) -> None:
    """Owners of sandboxes before those that share them."""
    specs = [record.spec for record in running if record.spec is not None]
    for spec in sorted(specs, key=lambda spec: spec.network_mode is NetworkMode.CONTAINER):
        sandbox = sandboxes.get(spec.network_container or spec.id)
        if sandbox is None:
            continue
        try:
            await node.seams.names.follow(spec, sandbox)
            if spec.network_mode is NetworkMode.BRIDGE:
                await node.seams.bundles.restore_names(spec, sandbox)
        except (SlipwayError, OSError) as error:
            # Of this container: the others, and the executor itself, do not depend on it.
            _log.error("names are not answered", container=spec.id, error=str(error))


async def _publish_as_recorded(node: Node, record: ContainerRecord, sandbox: Sandbox) -> None:
    """Its ports lead to where its record says. They do already, unless somebody changed something behind the executor's
    back, or an address had to become another."""
    spec = record.spec
    if spec is None or spec.network_mode is not NetworkMode.BRIDGE or not passes_host(node, sandbox):
        return
    try:
        ports = await lead_ports(node, spec, sandbox)
        if ports.changed:
            _log.warning("published ports are put right", container=record.id)
            await node.records.transition(record.id, Updated(ports=ports.bound), ports=ports)
    except (SlipwayError, OSError) as error:
        _log.error("ports cannot be put right", container=record.id, error=str(error))
        await bounded("ports", lambda: node.seams.ports.revert(spec.id), timeout=10, container=spec.id)


def _volume_holders(running: Iterable[ContainerRecord]) -> dict[str, set[str]]:
    """Ids of the containers by the volumes that they have mounted."""
    holders: dict[str, set[str]] = {}
    for record in running:
        for name in volumes_of(record.spec) if record.spec is not None else ():
            holders.setdefault(name, set()).add(record.id)
    return holders


async def _rebooted(node: Node, record: ContainerRecord) -> None:
    """Nobody saw the end of its run: it counts as a failure."""
    now = time.time_ns()
    restart = _after_boot(record, End(failed=True, stopped=record.stopped, at=now))
    event = Exited(
        start_id=record.run.start_id if record.run else "",
        exit_code=None,
        error=_REBOOTED,
        next_start=restart.next_start if restart else None,
    )
    change = Change(phase=Phase.STOPPED, run=None, health=None)
    if restart is not None:
        change["phase"], change["restart"] = Phase.RESTARTING, restart
    await node.records.transition(record.id, event, time_ns=now, **change)


async def _restart_after_boot(node: Node) -> None:
    """What ended before the machine did: `always` starts it whatever ended it, if it was ever started."""
    now = time.time_ns()
    for record in node.records.all():
        if record.phase is not Phase.STOPPED or record.removing or record.outcome is None:
            continue
        last = record.last.event if record.last is not None else None
        failed = not (isinstance(last, Exited) and last.exit_code == 0)
        restart = _after_boot(record, End(failed=failed, stopped=record.stopped, at=now))
        if restart is not None:
            await node.records.update(record.id, phase=Phase.RESTARTING, restart=restart)


def _after_boot(record: ContainerRecord, end: End) -> RestartState | None:
    if record.spec is None or record.removing:
        return None
    return after_boot(record.spec.restart_policy, record.restart, end)


@asynccontextmanager
async def _turn(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    """Without one, when others have theirs for too long."""
    async with AsyncExitStack() as stack:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await stack.enter_async_context(turns)
        yield


async def _put_right(node: Node, container_id: str, turns: asyncio.Semaphore, *, left_bundle: bool) -> None:
    """Finish what was being done to a container, and undo what a run that is over has left."""
    async with node.locks.hold_patiently(container_id), _turn(turns):
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


async def _remove_orphan(node: Node, container_id: str, turns: asyncio.Semaphore) -> None:
    """Nobody has a record of it: a crash in the middle of a create, or lost state."""
    async with node.locks.hold_patiently(container_id), _turn(turns):
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
