"""The one way a journal entry gets into the records, whether it came from the journal or in an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from api_service.nodes.executor import ContainerSnapshot, Exited, JournalEntry, NodeSnapshot, StartRefused
from api_service.nodes.transitions import apply, resynchronise
from api_service.records.container import ContainerRecord, JournalPosition
from api_service.records.container_repository import Changed, ContainerRepository
from api_service.records.event_log import EventLog

Ended = Callable[[ContainerRecord], None]
"""Called with the record of a container whose process ended or could not be started. Must not block."""


class Observer:
    """Idempotent: an entry that the record includes changes nothing and tells nothing twice."""

    def __init__(self, containers: ContainerRepository, events: EventLog, *, clock: Callable[[], int]) -> None:
        self._containers = containers
        self._events = events
        self._clock = clock
        self.on_ended: Ended = lambda record: None

    async def observe(self, entry: JournalEntry, *, journal_id: str) -> ContainerRecord | None:
        """Move the record forward when the entry is newer than what it includes; the entry's events are written in the
        same commit. Returns the record after that; None when the container is unknown here."""
        moved = late = False
        source = f"{journal_id[:16]}.{entry.sequence}"

        def change(record: ContainerRecord) -> Changed | None:
            nonlocal moved, late
            known = record.observed
            late = known.journal_id in ("", journal_id) and entry.sequence <= known.sequence
            moved = not late
            if late:
                return None
            changed, events = apply(record, entry)
            position = JournalPosition(journal_id=journal_id, sequence=entry.sequence)
            return Changed(record=dataclasses.replace(changed, observed=position), events=events, source=source)

        record = await self._containers.update(entry.container_id, change)
        if record is not None and late:
            # An answer may have been faster than the journal, which then still has to tell what came before it.
            await self._events.add_missing(apply(record, entry)[1], source=source)
        if record is not None and moved and isinstance(entry.event, Exited | StartRefused):
            self.on_ended(record)
        return record

    async def resynchronise(self, snapshot: NodeSnapshot, *, node: str) -> None:
        """Bring every container of the node to what the snapshot says; records that are ahead of it stay."""
        found = {container.container_id: container for container in snapshot.containers}
        for record in await self._containers.all():
            if record.node == node:
                await self._resynchronise_one(record.id, found.get(record.id), snapshot)

    async def _resynchronise_one(
        self, container_id: str, container: ContainerSnapshot | None, node: NodeSnapshot
    ) -> None:
        ended = False

        def change(record: ContainerRecord) -> Changed | None:
            nonlocal ended
            known = record.observed
            if known.journal_id in ("", node.journal_id) and known.sequence > node.sequence:
                return None
            changed, events = resynchronise(record, container, node, now=self._clock())
            ended = changed.state != record.state and not changed.state.running
            source = f"{node.journal_id[:16]}.{node.sequence}.{container_id[:16]}"
            return Changed(record=changed, events=events, source=source)

        record = await self._containers.update(container_id, change)
        if record is not None and ended:
            self.on_ended(record)
