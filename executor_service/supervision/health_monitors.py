"""One task for each running container that has a health check, none for the others.

A frozen container is not probed: the task ends when it is paused, whatever it was doing, and another begins when it
goes on. Only news is journaled.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from common.errors import NotFound, SlipwayError
from executor_service.container import ContainerSpec
from executor_service.container_record import Phase, Run
from executor_service.health import HealthCheck, HealthStatus, ProbeResult
from executor_service.journal import Journal
from executor_service.journal_entries import HealthChanged, JournalEntry, Paused, Unpaused
from executor_service.records import ContainerRecords
from executor_service.supervision.health_state import after_probe, is_news, wait_before_probe
from executor_service.supervision.probes import Prober, ProbeTarget
from executor_service.tasks import cancel_all

_log = structlog.get_logger(__name__)

OnUnhealthy = Callable[[str, str], None]
"""Called with a container's id and the id of the start that became unhealthy. Must not block."""


@dataclass(slots=True, kw_only=True)
class _Monitor:
    spec: ContainerSpec
    check: HealthCheck
    run: Run
    target: ProbeTarget
    started_at: int
    health: HealthChanged
    task: asyncio.Task[None] | None = None


class HealthMonitors:
    """Use as an async context manager: leaving it stops probing."""

    def __init__(
        self, *, records: ContainerRecords, journal: Journal, prober: Prober, on_unhealthy: OnUnhealthy
    ) -> None:
        self._records = records
        self._prober = prober
        self._on_unhealthy = on_unhealthy
        self._monitors: dict[str, _Monitor] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        journal.listen(self._heard)

    async def __aenter__(self) -> HealthMonitors:
        return self

    async def __aexit__(self, *_: object) -> None:
        await cancel_all(self._tasks)

    def watch(self, spec: ContainerSpec, run: Run) -> None:
        """Probe a run whose `started` entry is written, from where an executor before this one came."""
        record = self._records.get(spec.id)
        if spec.health_check is None or record.started is None:
            return
        self._monitors[spec.id] = monitor = _Monitor(
            spec=spec,
            check=spec.health_check,
            run=run,
            target=ProbeTarget.of(spec, run, record.started),
            started_at=record.started.time,
            health=record.health or HealthChanged(status=HealthStatus.STARTING),
        )
        if record.phase is not Phase.PAUSED:
            self._begin(monitor)
        if monitor.health.status is HealthStatus.UNHEALTHY:
            # The executor before this one may have ended before it did something about it.
            self._on_unhealthy(spec.id, run.start_id)

    def forget(self, container_id: str) -> None:
        """Its process has ended. Not watched: nothing happens."""
        if (monitor := self._monitors.pop(container_id, None)) is not None:
            self._end(monitor)

    def _heard(self, entry: JournalEntry) -> None:
        monitor = self._monitors.get(entry.container_id)
        if monitor is None:
            return
        if isinstance(entry.event, Paused):
            self._end(monitor)
        elif isinstance(entry.event, Unpaused):
            self._begin(monitor)

    def _begin(self, monitor: _Monitor) -> None:
        if monitor.task is None:
            name = f"health {monitor.spec.id[:12]}"
            monitor.task = asyncio.create_task(self._probe_forever(monitor), name=name)
            self._tasks.add(monitor.task)
            monitor.task.add_done_callback(self._tasks.discard)

    def _end(self, monitor: _Monitor) -> None:
        if monitor.task is not None:
            monitor.task.cancel()
            monitor.task = None

    async def _probe_forever(self, monitor: _Monitor) -> None:
        structlog.contextvars.clear_contextvars()  # those of the call that started it
        while True:
            age = (time.time_ns() - monitor.started_at) / 1e9
            await asyncio.sleep(wait_before_probe(monitor.check, monitor.health, age=age))
            began = time.time_ns()
            outcome = await self._prober.probe(monitor.check.probe, monitor.target, timeout=monitor.check.timeout)
            result = ProbeResult(
                started_at=began, ended_at=time.time_ns(), exit_code=outcome.exit_code, output=outcome.output
            )
            await self._tell(monitor, after_probe(monitor.check, monitor.health, result, started_at=monitor.started_at))

    async def _tell(self, monitor: _Monitor, health: HealthChanged) -> None:
        before, container_id = monitor.health, monitor.spec.id
        if is_news(before, health):
            try:
                await self._records.transition(container_id, health, health=health)
            except NotFound:
                return
            except SlipwayError as error:
                # The next result tells it: what is kept here is what was told.
                _log.error("health cannot be journaled", container=container_id, error=error.message)
                return
        monitor.health = health
        if health.status is HealthStatus.UNHEALTHY and before.status is not HealthStatus.UNHEALTHY:
            _log.warning("unhealthy", container=container_id)
            self._on_unhealthy(container_id, monitor.run.start_id)
