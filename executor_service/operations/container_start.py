"""Start a container: mount, sandbox, bundle, process. Everything is undone when anything fails, is cancelled or late.

The start is on record before its process can exist, so that whatever a crash leaves is found again. What does not
depend on each other runs side by side: that record, the network, and the root with the lookup of the user in it; then
the process that does nothing yet, and the ports that lead to where it will listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, StartFailed
from executor_service.container import ContainerSpec, NameResolution, NetworkMode
from executor_service.container_record import ContainerRecord, Phase, Run
from executor_service.health import HealthStatus
from executor_service.host_errors import host_errors
from executor_service.journal_entries import HealthChanged, JournalEntry, Started, StartFailure
from executor_service.mount_staging import StagedMount
from executor_service.network.publication import Publication
from executor_service.network.sandbox import Endpoint, Sandbox
from executor_service.node import Node
from executor_service.oci.namespaces import Joined
from executor_service.oci.runtime import Bundle, CreatedProcess
from executor_service.oci.users import ResolvedUser
from executor_service.operations.container_rules import id_violations, start_id_violations
from executor_service.operations.namespace_join import check_joined, join_namespaces, sandbox_owner
from executor_service.operations.port_targets import lead_ports, passes_host
from executor_service.operations.requested_devices import with_requested_devices
from executor_service.operations.start_failure import OTHER_FAILURE, start_failed
from executor_service.operations.start_recovery import recover_start
from executor_service.operations.start_steps import StartSteps
from executor_service.records import Change
from executor_service.restart import RestartState
from executor_service.tasks import bounded, together
from executor_service.threads import to_the_end
from executor_service.user_namespaces import Owner

POLICY_START = "restart-"  # how the start ids begin that the executor gives
_IMAGE_UNFIT = "IMAGE_UNFIT"  # what the container asks for is not in its image, a user for one


async def container_start(node: Node, *, container_id: str, start_id: str) -> JournalEntry:
    """A `started` entry, or a `start_failed` one when the process cannot be started. A start_id that is known returns
    its first outcome. Raises NotFound, FailedPrecondition when the container runs, is broken or is being removed, and
    what the host lacks; after an error the start_id may be used again."""
    if broken := [*id_violations(container_id), *start_id_violations(start_id)]:
        raise InvalidArgument(violations=broken)
    async with node.locks.hold(container_id):
        await recover_start(node, node.records.get(container_id))
        record = node.records.get(container_id)
        if (entry := await _outcome(node, record, start_id) or _restarted(record)) is not None:
            return entry
        return await start_locked(node, container_id, start_id=start_id)


async def start_locked(node: Node, container_id: str, *, start_id: str, by_policy: bool = False) -> JournalEntry:
    """The start itself, under the container's lock. One that is asked for begins the policy's count anew."""
    spec = _startable(node.records.get(container_id))
    await node.cleanup.settle(container_id)
    return await _Start(node=node, spec=spec, start_id=start_id, by_policy=by_policy).run()


def _restarted(record: ContainerRecord) -> JournalEntry | None:
    """The start by the policy that was faster than the one that is asked for."""
    running = record.run is not None and record.run.start_id.startswith(POLICY_START)
    return record.started if running and not record.removing else None


async def _outcome(node: Node, record: ContainerRecord, start_id: str) -> JournalEntry | None:
    last = record.outcome
    if last is None:
        return None
    if isinstance(last.event, Started | StartFailure) and last.event.start_id == start_id:
        return last
    return await node.journal.outcome(record.id, start_id)


def _startable(record: ContainerRecord) -> ContainerSpec:
    if record.spec is not None and not record.removing and not record.phase.has_process:
        return record.spec
    if record.removing:
        why = "it is being removed"
    elif record.phase.has_process and record.run is not None:
        why = f"it runs already, by start {record.run.start_id!r}; stop it first"
    else:
        why = record.error
    raise FailedPrecondition(
        f"container {record.id!r}: {why}", resource_type="container", resource_name=record.id, reason="CANNOT_START"
    )


def _failure(error: BaseException) -> StartFailed | None:
    """The error, if it is the container's own: its command, or what its image says of users and directories."""
    if isinstance(error, StartFailed):
        return error
    if isinstance(error, InvalidArgument):
        return StartFailed(error.message, exit_code=OTHER_FAILURE, reason=_IMAGE_UNFIT)
    if isinstance(error, FailedPrecondition) and error.resource_type == "image":
        return StartFailed(error.message, exit_code=OTHER_FAILURE, reason=error.reason)
    return None


@dataclass(slots=True, kw_only=True)
class _Start:
    """One attempt, under the container's lock."""

    node: Node
    spec: ContainerSpec
    start_id: str
    by_policy: bool
    undo: AsyncExitStack = field(default_factory=AsyncExitStack)
    rootfs: Path = field(init=False)
    user: ResolvedUser = field(init=False)
    sandbox: Sandbox = field(init=False)
    bundle: Bundle = field(init=False)
    process: CreatedProcess = field(init=False)
    mounts: Sequence[StagedMount] = ()
    ports: Publication = field(default_factory=Publication)
    committed: bool = False

    async def run(self) -> JournalEntry:
        steps = StartSteps(self.spec.id)
        try:
            with host_errors(f"container {self.spec.id!r}"):
                process = await self._bring_up(steps)
                with steps.step("commit"):
                    return await to_the_end(self._commit(process))
        except BaseException as error:
            if self.committed:
                raise
            await self.undo.aclose()
            if (failure := _failure(error)) is not None:
                return await to_the_end(self._failed(failure))
            await self._forget()
            raise
        finally:
            steps.report()

    async def _bring_up(self, steps: StartSteps) -> CreatedProcess:
        node, container_id = self.node, self.spec.id
        try:
            async with asyncio.timeout(node.limits.start):
                self.spec = await with_requested_devices(node, self.spec)
                joined = await join_namespaces(node, self.spec)
                owner = sandbox_owner(node, self.spec, joined)
                with node.seams.cgroups.expect_moves():
                    await together(self._record(steps), self._root(steps), self._network(steps, owner))
                    await together(self._create(steps, joined), self._publish(steps))
                if node.attachments.awaited(container_id):
                    # Before the process does anything: whoever attached before the start misses nothing.
                    await node.attachments.connect(self.spec, self.bundle.directory)
                if self.spec.leased:
                    self.node.lease.require(self.spec.id)
                with steps.step("start"):
                    await node.seams.runtime.start(container_id, runtime=self.bundle.runtime)
                return self.process
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"container {container_id!r}: its start took longer than {node.limits.start:g} s and was undone"
            ) from error

    async def _record(self, steps: StartSteps) -> None:
        with steps.step("intent"):
            await self.node.records.update(self.spec.id, starting=self.start_id)
        if self.spec.leased:
            with steps.step("lease"):
                self._push("lease", lambda: self.node.lease.leave(self.spec.id))
                await self.node.lease.enter(self.spec.id, self.node.seams.cgroups.directories(self.spec))

    async def _root(self, steps: StartSteps) -> None:
        with steps.step("mount"):
            self._push("root", lambda: self.node.seams.snapshots.unmount(self.spec.id))
            self.rootfs = await self.node.seams.snapshots.mount(self.spec.id, remapped=self.spec.remapped)
        if self.spec.mounts:
            with steps.step("mounts"):
                self._push("mounts", lambda: self.node.seams.mounts.end(self.spec.id))
                self.mounts = await self.node.seams.mounts.stage(self.spec)
        with steps.step("user"):
            self.user = await self.node.seams.bundles.resolve_user(self.spec, rootfs=self.rootfs, mounts=self.mounts)

    async def _network(self, steps: StartSteps, owner: Owner | None) -> None:
        with steps.step("sandbox"):
            network, spec = self.node.seams.network, self.spec
            self._push("network", lambda: network.leave(spec.id))
            if spec.network_mode is NetworkMode.CONTAINER:
                self.sandbox = await network.join(spec.id, spec.network_container)
            else:
                self.sandbox = await network.create(
                    spec.id,
                    mode=spec.network_mode,
                    endpoints=spec.endpoints,
                    owner=owner,
                    resolution=NameResolution(servers=spec.names.servers, options=spec.names.options),
                )
            self._push("names", lambda: self.node.seams.names.forget(spec.id))
            await self.node.seams.names.follow(spec, self.sandbox)

    async def _create(self, steps: StartSteps, joined: Joined) -> None:
        """The process, which does nothing yet."""
        node, container_id = self.node, self.spec.id
        with steps.step("bundle"):
            self._push("bundle", lambda: node.seams.bundles.remove_bundle(container_id))
            self.bundle = await node.seams.bundles.lay_out(
                self.spec,
                rootfs=self.rootfs,
                sandbox=self.sandbox,
                user=self.user,
                mounts=self.mounts,
                joined=joined,
            )
        with steps.step("create"):
            self._push("process", lambda: node.cleanup.end_process(container_id, runtime=self.spec.runtime))
            self.process = await node.seams.runtime.create(self.bundle)
            await check_joined(self.spec, joined)
            await node.seams.cgroups.complete(self.spec)
        if self.mounts:
            await node.seams.mounts.unstage(container_id)

    async def _publish(self, steps: StartSteps) -> None:
        if self.spec.published_ports and passes_host(self.node, self.sandbox):
            with steps.step("ports"):
                self._push("ports", lambda: self.node.seams.ports.revert(self.spec.id))
                self.ports = await lead_ports(self.node, self.spec, self.sandbox)

    async def _commit(self, process: CreatedProcess) -> JournalEntry:
        """The point of no return: whoever cancels after it finds the container running."""
        run = Run(start_id=self.start_id, process=process, boot_id=self.node.boot_id)
        record = self.node.records.get(self.spec.id)
        restart = replace(record.restart, next_start=None) if self.by_policy else RestartState()
        started = Started(
            start_id=self.start_id,
            pid=process.container.pid,
            sandbox_id=self.sandbox.id,
            netns_path=self.sandbox.netns_path,
            endpoints=self._endpoints(),
            restart_count=restart.count,
            ports=self.ports.bound,
        )
        change = Change(phase=Phase.RUNNING, starting="", run=run)
        if record.restart != restart:
            change["restart"] = restart
        if record.stopped:
            change["stopped"] = False
        if self.spec.health_check is not None:
            change["health"] = HealthChanged(status=HealthStatus.STARTING)
        entry = await self.node.records.transition(self.spec.id, started, ports=self.ports, **change)
        self.committed = True
        if not self.by_policy:
            self.node.restarts.cancel(self.spec.id)
        self.node.supervisor.watch(self.spec, run)
        await self.node.attachments.connect(self.spec, self.node.paths.bundle(self.spec.id))
        return entry

    def _endpoints(self) -> tuple[Endpoint, ...]:
        """Its own: those of a sandbox that it shares are its owner's."""
        return self.sandbox.endpoints if self.spec.network_mode is NetworkMode.BRIDGE else ()

    async def _failed(self, error: StartFailed) -> JournalEntry:
        self.node.attachments.give_up(self.spec.id, error)
        own = error.reason if error.exit_code == OTHER_FAILURE and error.reason != error.default_reason else ""
        return await start_failed(
            self.node,
            self.spec.id,
            start_id=self.start_id,
            message=error.message,
            exit_code=error.exit_code,
            reason=own,
        )

    async def _forget(self) -> None:
        """Nothing of this start is left; a row that cannot be written now is put right by the next start."""
        await bounded(
            "record",
            lambda: self.node.records.update(self.spec.id, starting=""),
            timeout=self.node.limits.undo_step,
            container=self.spec.id,
        )

    def _push(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        async def undo() -> None:
            if not await bounded(name, step, timeout=self.node.limits.undo_step, container=self.spec.id):
                self.node.cleanup.expect(self.spec.id, runtime=self.spec.runtime)

        self.undo.push_async_callback(undo)
