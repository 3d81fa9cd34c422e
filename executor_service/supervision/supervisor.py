"""One task for each running container: it waits for the end, journals it with what its restart policy makes of it, and
then cleans up.

The exit is made known first, because somebody is waiting for it; whatever starts the container again waits for the
cleanup. A start has exactly one exit: only the task of that start writes it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from common.errors import NotFound, SlipwayError
from executor_service.cleanup import Cleanup
from executor_service.container import ContainerSpec
from executor_service.container_locks import ContainerLocks
from executor_service.container_record import Phase, Run
from executor_service.journal_entries import Exited, JournalEntry
from executor_service.lease import Lease
from executor_service.logs.rotation import LogRotator
from executor_service.oci.conmon import ConmonFiles
from executor_service.oci.runtime import ContainerRuntime, Exit
from executor_service.paths import Paths
from executor_service.records import Change, ContainerRecords
from executor_service.restart import RestartState
from executor_service.supervision.health_monitors import HealthMonitors
from executor_service.supervision.restart_decision import End, after_end
from executor_service.supervision.restarts import Restarts
from executor_service.tasks import cancel_all

_log = structlog.get_logger(__name__)

_RETRY = 1.0  # seconds until a failed wait or write is tried again
MONITOR_LOST = "the container's monitor was killed, so nobody saw the exit code"


@dataclass(slots=True, kw_only=True)
class Watch:
    """A running container. `ended` becomes its `exited` entry, or None when the container was removed meanwhile.
    Whoever ends it says so before: `stopping`: it is wanted, no restart follows; `unhealthy`: it counts as failed."""

    run: Run
    ended: asyncio.Future[JournalEntry | None]
    stopping: bool = False
    unhealthy: bool = False


class Supervisor:
    """Use as an async context manager: leaving it stops watching and leaves the containers running."""

    def __init__(
        self,
        *,
        paths: Paths,
        records: ContainerRecords,
        runtime: ContainerRuntime,
        cleanup: Cleanup,
        lease: Lease,
        locks: ContainerLocks,
        rotator: LogRotator,
        restarts: Restarts,
        monitors: HealthMonitors,
    ) -> None:
        self._paths = paths
        self._records = records
        self._runtime = runtime
        self._cleanup = cleanup
        self._lease = lease
        self._locks = locks
        self._rotator = rotator
        self._restarts = restarts
        self._monitors = monitors
        self._watches: dict[str, Watch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Supervisor:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_all(self._tasks)

    def watch(self, spec: ContainerSpec, run: Run) -> None:
        """Supervise a run whose `started` entry is written: its end, its health, and its log's cap."""
        watch = Watch(run=run, ended=asyncio.get_running_loop().create_future())
        self._watches[spec.id] = watch
        if not spec.log.disabled:
            files = ConmonFiles(bundle=self._paths.bundle(spec.id))
            control = files.relay_control if spec.log.buffer else files.control
            self._rotator.watch(spec.id, log=self._paths.log(spec.id), control=control, limits=spec.log)
        if spec.health_check is not None:
            self._monitors.watch(spec, run)
        task = asyncio.create_task(self._supervise(spec.id, watch, spec.runtime))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def watched(self, container_id: str) -> Watch | None:
        """The container's run, until its exit is journaled."""
        return self._watches.get(container_id)

    def running(self) -> list[str]:
        """Ids of the containers that run."""
        return list(self._watches)

    async def _supervise(self, container_id: str, watch: Watch, runtime: str) -> None:
        structlog.contextvars.clear_contextvars()  # those of the call that started it
        exit = await self._exit(container_id, watch.run)
        # Before the journal says so: whoever starts the container again the moment it is stopped must find it.
        self._cleanup.expect(container_id, runtime=runtime)
        self._monitors.forget(container_id)
        entry = await self._journal(container_id, watch, exit)
        self._rotator.forget(container_id)
        if self._watches.get(container_id) is watch:
            del self._watches[container_id]
        watch.ended.set_result(entry)
        if entry is not None and isinstance(entry.event, Exited) and entry.event.next_start is not None:
            self._restarts.set(container_id, entry.event.next_start)
        try:
            async with self._locks.hold_patiently(container_id):
                await self._cleanup.settle(container_id)
        except SlipwayError as error:
            _log.error("cleanup failed", container=container_id, error=error.message)

    async def _exit(self, container_id: str, run: Run) -> Exit:
        bundle = self._paths.bundle(container_id)
        while True:
            try:
                return await self._runtime.wait_exit(run.process, bundle=bundle)
            except Exception as error:
                # Nothing here may end supervision: an exit that is seen late is better than one never seen.
                _log.error("waiting for the exit failed", container=container_id, exc_info=error)
            await asyncio.sleep(_RETRY)

    async def _journal(self, container_id: str, watch: Watch, exit: Exit) -> JournalEntry | None:
        moment = int(exit.finished_at * 1e9)
        lease_over = self._lease.ended(container_id)
        while True:
            restart = self._next(container_id, watch, exit, moment) if not lease_over else None
            event = Exited(
                start_id=watch.run.start_id,
                exit_code=exit.code,
                oom_killed=exit.oom_killed,
                error=MONITOR_LOST if exit.code is None else "",
                next_start=restart.next_start if restart is not None else None,
                lease_over=lease_over,
            )
            change = Change(phase=Phase.STOPPED, run=None, health=None)
            if restart is not None:
                change["phase"], change["restart"] = Phase.RESTARTING, restart
            if watch.stopping or lease_over:
                change["stopped"] = True
            try:
                entry = await self._records.transition(container_id, event, time_ns=moment, **change)
            except NotFound:
                return None
            except SlipwayError as error:
                _log.error("an exit cannot be journaled", container=container_id, error=error.message)
                await asyncio.sleep(_RETRY)
            else:
                _log.info("exited", container=container_id, code=exit.code, oom_killed=exit.oom_killed)
                return entry

    def _next(self, container_id: str, watch: Watch, exit: Exit, moment: int) -> RestartState | None:
        """The restart that follows, by the policy as it stands now."""
        record = self._records.find(container_id)
        if record is None or record.spec is None or record.removing:
            return None
        began = record.started.time if record.started is not None else moment
        end = End(
            failed=exit.code != 0 or watch.unhealthy,
            stopped=watch.stopping or record.stopped,
            ran=(moment - began) / 1e9,
            at=moment,
        )
        return after_end(record.spec.restart_policy, record.restart, end)
