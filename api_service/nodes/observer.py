"""The one way a journal entry gets into the records, whether it came from the journal or in an answer."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import structlog

from api_service.executor_client.journal import ExecExited, Exited, JournalEntry, StartRefused
from api_service.executor_client.snapshot import ContainerSnapshot, NodeSnapshot
from api_service.nodes.transitions import apply, resynchronise, tells_alike
from api_service.records.codec import RECORD_UNREADABLE
from api_service.records.container import ContainerRecord, JournalPosition, Phase
from api_service.records.container_repository import Changed, ContainerRepository
from api_service.records.event import Event
from api_service.records.event_log import EventLog
from api_service.records.exec_repository import ExecRepository
from api_service.store.key_space import RECORD_TOO_LARGE
from common.errors import Internal, ResourceExhausted

_log = structlog.get_logger(__name__)

Ended = Callable[[ContainerRecord], None]
"""Called with the record of a container whose process ended or could not be started. Must not block."""


class Observer:
    """Of one node. Idempotent: an entry that the record includes changes nothing and tells nothing twice. What the node
    says of a container that is another's by now changes nothing either."""

    def __init__(
        self,
        containers: ContainerRepository,
        events: EventLog,
        execs: ExecRepository,
        *,
        node: str,
        clock: Callable[[], int],
    ) -> None:
        self._containers = containers
        self._events = events
        self._execs = execs
        self._node = node
        self._clock = clock
        self.on_ended: Ended = lambda record: None

    async def observe(self, entries: Sequence[JournalEntry]) -> ContainerRecord | None:
        """Move the record of one container forward by those entries of one journal, in order, that are newer than what
        it includes, in one commit with their events. Returns the record after that; None when the container is unknown
        here, or when its record cannot be read: one such record must not hold up the journal.

        What is too large for one commit is written entry by entry, and in the last resort without its events.
        """
        try:
            return await self._observe(entries)
        except ResourceExhausted as error:
            if error.reason != RECORD_TOO_LARGE:
                raise
        except Internal as error:
            if error.reason != RECORD_UNREADABLE:
                raise
            _log.error("journal entries passed over", container=entries[0].container_id, error=error.message)
            return None
        if len(entries) == 1:
            _log.error("events too large to be told", container=entries[0].container_id, sequence=entries[0].sequence)
            return await self._observe(entries, tell=False)
        record = None
        for entry in entries:
            record = await self.observe([entry])
        return record

    async def told(self, entry: JournalEntry, *, patience: float) -> bool:
        """Wait until the record includes the entry, or is gone; False after `patience` seconds."""
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(patience),
                contextlib.aclosing(self._containers.watch(entry.container_id)) as records,
            ):
                async for record in records:
                    if record is None or _includes(record, entry):
                        return True
        return False

    async def _observe(self, entries: Sequence[JournalEntry], *, tell: bool = True) -> ContainerRecord | None:
        applied: list[JournalEntry] = []

        def change(record: ContainerRecord) -> Changed | None:
            if record.node != self._node:
                return None
            applied[:] = [entry for entry in entries if not _includes(record, entry)]
            told: dict[str, Sequence[Event]] = {}
            for entry in applied:
                record, told[_source(entry)] = apply(record, entry)
            if not applied:
                return None
            last = applied[-1]
            position = JournalPosition(journal_id=last.journal_id, sequence=last.sequence)
            return Changed(record=dataclasses.replace(record, observed=position), sourced=told if tell else {})

        # Beside each other, for whoever waits for the end of an exec waits for both.
        record, *_ = await asyncio.gather(
            self._containers.update(entries[0].container_id, change),
            *(self._finish(entry, entry.event) for entry in entries if isinstance(entry.event, ExecExited)),
        )
        if record is None or record.node != self._node:
            return None
        for entry in entries:
            if tell and entry not in applied and tells_alike(entry.event):
                # An answer may have been faster than the journal, which then still has to tell what came before it.
                await self._events.add_missing(apply(record, entry)[1], source=_source(entry))
        if not record.state.active and any(isinstance(entry.event, Exited | StartRefused) for entry in applied):
            self.on_ended(record)
        return record

    async def _finish(self, entry: JournalEntry, ended: ExecExited) -> None:
        container = await self._containers.get(entry.container_id)
        if container is not None and container.record.node == self._node:
            await self._execs.finish(
                ended.exec_id,
                container_id=entry.container_id,
                exit_code=ended.exit_code,
                error=ended.error,
                time=entry.time,
            )

    async def resynchronise(self, snapshot: NodeSnapshot) -> None:
        """Bring every container of the node to what the snapshot says; records that are ahead of it stay."""
        found = {container.container_id: container for container in snapshot.containers}
        for record in await self._containers.on_node(self._node):
            # One that is being made, or moves, may not be there yet.
            if record.phase is not Phase.CREATING and not record.moving:
                await self._resynchronise_one(record.id, found.get(record.id), snapshot)

    async def _resynchronise_one(
        self, container_id: str, container: ContainerSnapshot | None, node: NodeSnapshot
    ) -> None:
        ended = False

        def change(record: ContainerRecord) -> Changed | None:
            nonlocal ended
            known = record.observed
            if record.node != self._node:
                return None
            if known.journal_id in ("", node.journal_id) and known.sequence > node.sequence:
                return None
            changed, events = resynchronise(record, container, node, now=self._clock())
            ended = changed.state != record.state and not changed.state.active
            source = f"{node.journal_id[:16]}.{node.sequence}.{container_id[:16]}"
            return Changed(record=changed, sourced={source: events})

        record = await self._containers.update(container_id, change)
        if record is not None and not record.state.running:
            await self._execs.lose(container_id, "the node no longer knows how it ended")
        if record is not None and ended:
            self.on_ended(record)


def _includes(record: ContainerRecord, entry: JournalEntry) -> bool:
    known = record.observed
    return known.journal_id in ("", entry.journal_id) and entry.sequence <= known.sequence


def _source(entry: JournalEntry) -> str:
    return f"{entry.journal_id[:16]}.{entry.sequence}"
