"""The executor over its seams, whatever they are: records, supervision, operations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from executor_service.cleanup import Cleanup
from executor_service.container_locks import ContainerLocks
from executor_service.files.threads import CopyThreads
from executor_service.journal import DEFAULT_RETENTION, Journal
from executor_service.lease import Lease
from executor_service.logs.rotation import LogRotator
from executor_service.logs.watch import LogWatcher
from executor_service.node import Node
from executor_service.oci.exec_process import process_in
from executor_service.oci.exec_runtime import ExecRuntime
from executor_service.operations.container_lease import lease_ready
from executor_service.operations.container_restart import container_restart
from executor_service.operations.container_stop import stop_unhealthy
from executor_service.operations.dependency_wait import dependencies_ready
from executor_service.operations.exec_target import exec_target
from executor_service.operations.node_inspect import NodeFacts
from executor_service.paths import Paths
from executor_service.records import ContainerRecords
from executor_service.resource_use import ResourceUse, images_of, networks_of, volumes_of
from executor_service.seams import Seams, TimeLimits
from executor_service.streams.attachments import Attachments
from executor_service.streams.execs import Execs
from executor_service.supervision.adoption import adopt
from executor_service.supervision.health_monitors import HealthMonitors
from executor_service.supervision.probes import MAX_OUTPUT, Prober, ProbeTarget
from executor_service.supervision.restarts import Restarts
from executor_service.supervision.supervisor import Supervisor
from executor_service.tasks import Operations


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    node: Node
    operations: Operations
    facts: NodeFacts


class _Reactions:
    """What supervision lets happen on the node, which is put together after it."""

    node: Node

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def ready(self, container_id: str, _: int) -> None:
        await lease_ready(self.node, container_id)
        await dependencies_ready(self.node, container_id)

    async def restart(self, container_id: str, next_start: int) -> None:
        await container_restart(self.node, container_id, next_start)

    def unhealthy(self, container_id: str, start_id: str) -> None:
        self._operations.start(stop_unhealthy(self.node, container_id, start_id))


@asynccontextmanager
async def open_executor(
    seams: Seams,
    *,
    paths: Paths,
    facts: NodeFacts,
    boot_id: str,
    limits: TimeLimits | None = None,
    retention: int = DEFAULT_RETENTION,
    grace: float = 20.0,  # seconds
) -> AsyncIterator[Executor]:
    """Take over what runs on the node. Leaving waits `grace` for what is under way; the containers go on running."""
    operations = Operations()
    reactions = _Reactions(operations)
    limits = limits or TimeLimits()
    opened = _open_node(seams, reactions, paths=paths, facts=facts, boot_id=boot_id, limits=limits, retention=retention)
    async with opened as node:
        reactions.node = node
        try:
            await adopt(node, operations)
            yield Executor(node=node, operations=operations, facts=facts)
        finally:
            node.journal.close()
            node.attachments.close()
            await operations.drain(timeout=grace)


@asynccontextmanager
async def _open_node(
    seams: Seams,
    reactions: _Reactions,
    *,
    paths: Paths,
    facts: NodeFacts,
    boot_id: str,
    limits: TimeLimits,
    retention: int,
) -> AsyncIterator[Node]:
    journal = Journal(seams.database, retention=retention)
    await journal.load()
    records = ContainerRecords(seams.database, journal)
    await records.load()
    locks = ContainerLocks(timeout=limits.lock)
    lease = await Lease.open(paths.lease, boot_id=boot_id)
    cleanup = Cleanup(paths=paths, seams=seams, lease=lease, limits=limits, runtimes=facts.runtimes)
    async with (
        LogWatcher.open() as log_watcher,
        CopyThreads.open() as copies,
        Execs.open(records=records, runtime=seams.execs) as execs,
        _supervise(
            seams, reactions, cleanup, paths=paths, journal=journal, records=records, locks=locks, lease=lease
        ) as (supervisor, restarts),
    ):
        yield Node(
            paths=paths,
            limits=limits,
            boot_id=boot_id,
            runtimes=facts.runtimes,
            cgroup_features=facts.cgroups.names,
            user_mapping=facts.user_mapping,
            seams=seams,
            journal=journal,
            records=records,
            locks=locks,
            image_use=ResourceUse(records, "image", images_of),
            volume_use=ResourceUse(records, "volume", volumes_of),
            network_use=ResourceUse(records, "network", networks_of),
            lease=lease,
            cleanup=cleanup,
            supervisor=supervisor,
            restarts=restarts,
            log_watcher=log_watcher,
            copies=copies,
            execs=execs,
            attachments=Attachments(),
        )


@asynccontextmanager
async def _supervise(
    seams: Seams,
    reactions: _Reactions,
    cleanup: Cleanup,
    *,
    paths: Paths,
    journal: Journal,
    records: ContainerRecords,
    locks: ContainerLocks,
    lease: Lease,
) -> AsyncIterator[tuple[Supervisor, Restarts]]:
    prober = _prober(paths, seams.execs)
    async with (
        LogRotator.open() as rotator,
        Restarts(ready=reactions.ready, start=reactions.restart) as restarts,
        HealthMonitors(records=records, journal=journal, prober=prober, on_unhealthy=reactions.unhealthy) as monitors,
        Supervisor(
            paths=paths,
            records=records,
            runtime=seams.runtime,
            cleanup=cleanup,
            lease=lease,
            locks=locks,
            rotator=rotator,
            restarts=restarts,
            monitors=monitors,
        ) as supervisor,
    ):
        yield supervisor, restarts


def _prober(paths: Paths, execs: ExecRuntime) -> Prober:
    async def run_program(target: ProbeTarget, args: tuple[str, ...], timeout: float) -> tuple[int | None, bytes]:
        where = exec_target(paths, target.spec, target.run)
        outcome = await execs.run_probe(where, process_in(target.spec, args), timeout=timeout, max_output=MAX_OUTPUT)
        return outcome.exit_code, outcome.output

    return Prober(sockets=paths.run / "probes", run_program=run_program)
