"""A node's containers at one instant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from api_service.executor_client.journal import JournalEntry
from api_service.records.health import Health


class SnapshotPhase(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    RESTARTING = "restarting"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSnapshot:
    """`started` is the last `Started` entry, `last` the last of any kind; None when there is none. `health` is None
    without a check, and unless it runs. `execs`: the ids of those that begin or run, or whose end is not journaled.
    `removing`: its removal has begun, so nothing starts it any more."""

    container_id: str
    phase: SnapshotPhase
    started: JournalEntry | None = None
    last: JournalEntry | None = None
    error: str = ""
    health: Health | None = None
    execs: tuple[str, ...] = ()
    removing: bool = False

    @property
    def may_run(self) -> bool:
        """Whether it runs, or would by itself. Of a broken one nobody knows."""
        if self.phase is SnapshotPhase.RESTARTING:
            return not self.removing
        return self.phase not in (SnapshotPhase.CREATED, SnapshotPhase.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSnapshot:
    """Every container of the node, and the journal's position at the same instant."""

    containers: Sequence[ContainerSnapshot]
    journal_id: str
    sequence: int
