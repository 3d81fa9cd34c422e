"""What this node knows of one container."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from executor_service.container import ContainerSpec
from executor_service.journal_entries import HealthChanged, JournalEntry
from executor_service.oci.runtime import CreatedProcess
from executor_service.restart import RestartState


class Phase(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"  # not running, and to be started again by its policy
    STOPPED = "stopped"
    BROKEN = "broken"  # never stored: what a row is that cannot be read

    @property
    def has_process(self) -> bool:
        return self in (Phase.RUNNING, Phase.PAUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The running process, with what proves after a restart that it is still the same one."""

    start_id: str
    process: CreatedProcess
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """A container on this node. `spec` is None when the row is broken, and `error` says why.

    `starting` is the start_id of a start under way, `removing` that a removal began: what a crash left half done.
    `started`, `outcome` (how the last start ended) and `last` (a begin, an end or a signal) are journal entries, kept
    here however old they are; `started` with the endpoints and ports of now. `stopped`: somebody ended its last run, or
    called its restart off. `health`: what its check says; None without one, and unless it runs.
    """

    id: str
    spec: ContainerSpec | None
    phase: Phase = Phase.CREATED
    starting: str = ""
    removing: bool = False
    run: Run | None = None
    started: JournalEntry | None = None
    outcome: JournalEntry | None = None
    last: JournalEntry | None = None
    stopped: bool = False
    restart: RestartState = field(default_factory=RestartState)
    health: HealthChanged | None = None
    error: str = ""
