"""What this node knows of its containers: one row each, mirrored in memory.

Reads come from memory and never wait. A change names the columns it sets, so that two changes of one container under
way at once cannot undo each other; memory follows the disk in the order of the commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import structlog
from pydantic import TypeAdapter, ValidationError

from common.errors import FailedPrecondition, NotFound
from common.sqlite import Database
from executor_service.container import ContainerSpec
from executor_service.container_record import ContainerRecord, Phase, Run
from executor_service.journal import Journal
from executor_service.journal_entries import (
    Event,
    Exited,
    HealthChanged,
    JournalEntry,
    NetworkConnected,
    NetworkDisconnected,
    Signaled,
    Started,
    StartFailure,
    Updated,
)
from executor_service.network.publication import Publication
from executor_service.restart import RestartState

SCHEMA = """
CREATE TABLE IF NOT EXISTS containers (
    id TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    phase TEXT NOT NULL,
    starting TEXT NOT NULL DEFAULT '',
    removing INTEGER NOT NULL DEFAULT 0,
    run TEXT,
    started TEXT,
    outcome TEXT,
    last TEXT,
    stopped INTEGER NOT NULL DEFAULT 0,
    restart TEXT,
    health TEXT
) STRICT, WITHOUT ROWID;
"""

_log = structlog.get_logger(__name__)


class Change(TypedDict, total=False):
    """The columns a change may set."""

    phase: Phase
    starting: str
    removing: bool
    run: Run | None
    stopped: bool
    restart: RestartState
    health: HealthChanged | None
    spec: ContainerSpec


class ContainerRecords:
    """All records of the node. Use `load` first; belongs to one event loop."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal
        self._records: dict[str, ContainerRecord] = {}

    async def load(self) -> None:
        """A row that cannot be read becomes a broken record; the others are not its hostages."""
        rows = await self._database.read(lambda connection: connection.execute(_SELECT).fetchall())
        self._records = {record.id: record for record in map(_record, rows)}

    def find(self, container_id: str) -> ContainerRecord | None:
        return self._records.get(container_id)

    def get(self, container_id: str) -> ContainerRecord:
        """Raises NotFound."""
        record = self._records.get(container_id)
        if record is None:
            raise _unknown(container_id)
        return record

    def all(self) -> list[ContainerRecord]:
        """Every record, ordered by id."""
        return [self._records[container_id] for container_id in sorted(self._records)]

    async def insert(self, spec: ContainerSpec) -> None:
        text = _SPEC.dump_json(spec).decode()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO containers (id, spec, phase) VALUES (?, ?, ?)", (spec.id, text, Phase.CREATED.value)
            )

        def committed(_: None) -> None:
            self._records[spec.id] = ContainerRecord(id=spec.id, spec=spec)

        await self._database.write(work, on_commit=committed)

    async def update(self, container_id: str, **change: Unpack[Change]) -> None:
        """Raises NotFound when the container was removed meanwhile."""

        def work(connection: sqlite3.Connection) -> None:
            _update(connection, container_id, change, {})

        def committed(_: None) -> None:
            self._records[container_id] = replace(self._records[container_id], **change)

        await self._database.write(work, on_commit=committed)

    async def transition(
        self,
        container_id: str,
        event: Event,
        *,
        time_ns: int | None = None,
        only_in: Phase | None = None,
        ports: Publication | None = None,
        **change: Unpack[Change],
    ) -> JournalEntry:
        """A change, its journal entry and where its `ports` lead, in one transaction. Raises NotFound when the
        container was removed, and FailedPrecondition when its phase is no longer `only_in`."""

        started = _started_now(self._records.get(container_id), event)

        def work(connection: sqlite3.Connection) -> tuple[JournalEntry, dict[str, JournalEntry]]:
            if only_in is not None:
                _require_phase(connection, container_id, only_in)
            entry = self._journal.append(connection, container_id=container_id, event=event, time_ns=time_ns)
            if ports is not None:
                ports.write(connection)
            kept = {"last": entry} if isinstance(event, _OF_A_RUN) else {}
            if isinstance(event, Started | StartFailure):
                kept["outcome"] = entry
            if isinstance(event, Started):
                kept["started"] = entry
            elif started is not None:
                kept["started"] = started
            _update(connection, container_id, change, kept)
            return entry, kept

        def committed(result: tuple[JournalEntry, dict[str, JournalEntry]]) -> None:
            entry, kept = result
            fields: dict[str, Any] = {**change, **kept}
            self._records[container_id] = replace(self._records[container_id], **fields)
            if ports is not None:
                ports.committed()
            self._journal.publish(entry)

        entry, _ = await self._database.write(work, on_commit=committed)
        return entry

    async def delete(self, container_id: str) -> None:
        """Nothing there: nothing happens."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM containers WHERE id = ?", (container_id,))

        def committed(_: None) -> None:
            self._records.pop(container_id, None)

        await self._database.write(work, on_commit=committed)


def _started_now(record: ContainerRecord | None, event: Event) -> JournalEntry | None:
    """The run's begin as it would be told now: a snapshot says by it where the container's ports are."""
    if record is None or record.started is None or not record.phase.has_process:
        return None
    started = record.started.event
    assert isinstance(started, Started)
    if isinstance(event, NetworkConnected | NetworkDisconnected):
        return replace(record.started, event=replace(started, endpoints=event.endpoints, ports=event.ports))
    if isinstance(event, Updated) and event.ports is not None:
        return replace(record.started, event=replace(started, ports=event.ports))
    return None


_OF_A_RUN = Started | StartFailure | Exited | Signaled
_SPEC = TypeAdapter(ContainerSpec)
_RUN = TypeAdapter(Run)
_ENTRY = TypeAdapter(JournalEntry)
_RESTART = TypeAdapter(RestartState)
_HEALTH = TypeAdapter(HealthChanged)
_SELECT = (
    "SELECT id, spec, phase, starting, removing, run, started, outcome, last, stopped, restart, health FROM containers"
)
_ENCODERS: Mapping[str, Callable[[Any], object]] = {
    "spec": lambda spec: _SPEC.dump_json(spec).decode(),
    "phase": str,
    "starting": str,
    "removing": int,
    "run": lambda run: None if run is None else _RUN.dump_json(run).decode(),
    "stopped": int,
    "restart": lambda restart: _RESTART.dump_json(restart).decode(),
    "health": lambda health: None if health is None else _HEALTH.dump_json(health).decode(),
}


def _update(
    connection: sqlite3.Connection, container_id: str, change: Change, kept: Mapping[str, JournalEntry]
) -> None:
    columns: dict[str, object] = {name: _ENCODERS[name](value) for name, value in change.items()}
    # Mostly one entry in several columns, which is long when the container has many ports.
    texts = {entry.sequence: _ENTRY.dump_json(entry).decode() for entry in kept.values()}
    columns |= {name: texts[entry.sequence] for name, entry in kept.items()}
    assignments = ", ".join(f"{name} = ?" for name in columns) or "id = id"
    cursor = connection.execute(
        f"UPDATE containers SET {assignments} WHERE id = ?",  # noqa: S608 - the names are those of `_ENCODERS`
        (*columns.values(), container_id),
    )
    if cursor.rowcount == 0:
        raise _unknown(container_id)


def _require_phase(connection: sqlite3.Connection, container_id: str, phase: Phase) -> None:
    row = connection.execute("SELECT phase FROM containers WHERE id = ?", (container_id,)).fetchone()
    if row is not None and row[0] != phase.value:
        raise FailedPrecondition(
            f"container {container_id!r} is {row[0]} meanwhile, no longer {phase}",
            resource_type="container",
            resource_name=container_id,
            reason="NOT_RUNNING",
        )


def _record(row: tuple[Any, ...]) -> ContainerRecord:
    container_id, spec, phase, starting, removing, run, started, outcome, last, stopped, restart, health = row
    try:
        return ContainerRecord(
            id=container_id,
            spec=_own_spec(container_id, spec),
            phase=Phase(phase),
            starting=starting,
            removing=bool(removing),
            run=None if run is None else _RUN.validate_json(run),
            started=None if started is None else _ENTRY.validate_json(started),
            outcome=None if outcome is None else _ENTRY.validate_json(outcome),
            last=None if last is None else _ENTRY.validate_json(last),
            stopped=bool(stopped),
            restart=RestartState() if restart is None else _RESTART.validate_json(restart),
            health=None if health is None else _HEALTH.validate_json(health),
        )
    except ValueError as error:
        _log.error("a container's record cannot be read", container=container_id, error=str(error))
        return ContainerRecord(
            id=container_id,
            spec=None,
            phase=Phase.BROKEN,
            removing=bool(removing),
            error=f"its record cannot be read, only removing it is possible: {_first_line(error)}",
        )


def _own_spec(container_id: str, text: str) -> ContainerSpec:
    spec = _SPEC.validate_json(text)
    if spec.id != container_id:
        raise ValueError(f"the specification is that of container {spec.id!r}")
    return spec


def _first_line(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"
    return str(error)


def _unknown(container_id: str) -> NotFound:
    return NotFound(
        f"container {container_id!r} is not on this node", resource_type="container", resource_name=container_id
    )
