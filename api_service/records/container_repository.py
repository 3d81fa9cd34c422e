"""The containers in the store: `containers/<id>`, `names/<name>` and `requests/<request id>`, both to an id.

The three are written in the same commits, so a name or request id is never held by a container that does not exist.
A commit that changes a record carries the events of the change.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence, Set
from contextlib import nullcontext
from dataclasses import dataclass, field
from urllib.parse import quote

from api_service.records.codec import Codec, Stored
from api_service.records.container import ContainerRecord, Phase
from api_service.records.container_index import ContainerIndex, Place, Term, on_node
from api_service.records.event import Event
from api_service.records.event_log import EventLog
from api_service.records.node_usage import NodeUsages
from api_service.store.store import Delete, Entry, Put, RevisionConflict, Store
from common.errors import Aborted, InvalidArgument, NotFound, Violation

_PREFIX = "containers/"
_FULL_ID = re.compile(r"[0-9a-f]{64}")
_ID_PREFIX = re.compile(r"[0-9a-f]{1,63}")
_MAX_ATTEMPTS = 64  # of one compare-and-set; each failure means that another commit to the same record succeeded
_MAX_CANDIDATES = 10
_KEPT = 65_536  # decoded records: two kilobytes each, and a list that had to decode 30,000 would take seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A record as a change leaves it, and the events that belong to the change; `sourced` are those whose keys are
    reproducible (see `EventLog.puts`), by source."""

    record: ContainerRecord
    events: Sequence[Event] = ()
    sourced: Mapping[str, Sequence[Event]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A container as one commit left it; `record` None: removed, or nothing that was asked about."""

    id: str
    record: ContainerRecord | None
    revision: int


class ContainerRepository:
    """Every method raises what the store raises."""

    def __init__(self, store: Store, events: EventLog, usages: NodeUsages) -> None:
        self._store = store
        self._events = events
        self._usages = usages
        self._codec = Codec(ContainerRecord, kept=_KEPT)
        self._index = ContainerIndex(store, self._codec, _PREFIX)

    async def get(self, container_id: str) -> Stored[ContainerRecord] | None:
        entry = await self._store.get(_key(container_id))
        return self._codec.decode(entry) if entry is not None else None

    async def exists(self, container_id: str) -> bool:
        """Whether there is a record, of whatever phase, readable or not."""
        return await self._store.get(_key(container_id)) is not None

    async def find(self, reference: str) -> ContainerRecord:
        """The container of a full id, a name (a leading slash is dropped) or a unique id prefix, in this order.

        Raises NotFound, or InvalidArgument (reason `AMBIGUOUS_CONTAINER`) naming the candidates.
        """
        if _FULL_ID.fullmatch(reference) and (found := await self._shown(reference)) is not None:
            return found
        named = await self._store.get(_name_key(reference.removeprefix("/")))
        if named is not None and (found := await self._shown(named.value.decode())) is not None:
            return found
        matches = await self._with_prefix(reference) if _ID_PREFIX.fullmatch(reference) else []
        if len(matches) > 1:
            raise _ambiguous(reference, matches)
        if not matches:
            raise no_such_container(reference)
        return matches[0]

    async def all(self) -> list[ContainerRecord]:
        """All that are shown, in no order."""
        return [record for record in await self.every_phase() if record.phase is not Phase.CREATING]

    async def newest_first(
        self, having: Sequence[Set[Term]] = (), *, before: Place | None = None, since: Place | None = None
    ) -> Iterator[ContainerRecord]:
        """See `ContainerIndex`."""
        return await self._index.newest_first(having, before=before, since=since)

    async def on_node(self, node: str) -> Sequence[ContainerRecord]:
        """Those of every phase that can be read, in no order. Of many thousands it looks at no others."""
        return await self._index.having(on_node(node))

    async def counts(self) -> Mapping[str, int]:
        """How many, of every phase, by node. To be read before anything else is awaited."""
        return await self._index.counts()

    async def index_forever(self) -> None:
        """Run it as a task, so that whoever asks waits for the latest changes at most."""
        await self._index.keep_up_forever()

    async def every_phase(self) -> list[ContainerRecord]:
        """Those that can be read."""
        return self._codec.readable(await self._store.list(_PREFIX))

    async def names(self) -> dict[str, str]:
        """By id, those of creates under way included. Reads no record."""
        entries = await self._store.list("names/")
        return {entry.value.decode(): entry.key.removeprefix("names/") for entry in entries}

    async def id_of_request(self, request_id: str) -> str | None:
        entry = await self._store.get(_request_key(request_id))
        return entry.value.decode() if entry is not None else None

    async def add(
        self, record: ContainerRecord, *, besides: Sequence[Put | Delete] = (), events: Sequence[Event] = ()
    ) -> None:
        """Reserve its request id and its name and write it, with what else belongs into that commit. Raises
        RevisionConflict, see `held_*`."""
        reserve = [Put(key=_name_key(record.name), value=record.id.encode(), expected_revision=0)]
        if record.request_id:
            reserve.insert(0, Put(key=_request_key(record.request_id), value=record.id.encode(), expected_revision=0))
        revision = await self._store.commit(
            *reserve,
            Put(key=_key(record.id), value=self._codec.encode(record), expected_revision=0),
            *besides,
            *self._events.puts(events),
        )
        self._codec.written(_key(record.id), record, revision)

    @staticmethod
    def held_request(conflict: RevisionConflict) -> bool:
        """Whether `add` failed for the request id."""
        return conflict.key.startswith("requests/")

    @staticmethod
    def held_name(conflict: RevisionConflict) -> str | None:
        """The id of the container that holds the name for which `add` or `rename` failed; None: it failed for another
        reason, or the holder is gone meanwhile."""
        if conflict.key.startswith("names/") and conflict.current is not None:
            return conflict.current.value.decode()
        return None

    async def update(
        self,
        container_id: str,
        change: Callable[[ContainerRecord], Changed | None],
        besides: Sequence[Put | Delete] = (),
    ) -> ContainerRecord | None:
        """Apply `change` to the record as it stands, again when another commit was faster; return the outcome.

        `change` is pure; its None leaves the record alone. None comes back when there is no such record. Raises
        RevisionConflict for what else belongs into that commit.
        """
        for _ in range(_MAX_ATTEMPTS):
            stored = await self.get(container_id)
            if stored is None:
                return None
            changed = change(stored.record)
            if changed is None:
                return stored.record
            try:
                await self._commit(stored, changed, *besides)
            except RevisionConflict as conflict:
                if conflict.key != _key(container_id):
                    raise
                continue
            return changed.record
        raise _contended(container_id)

    async def replace(
        self, stored: Stored[ContainerRecord], changed: Changed, besides: Sequence[Put | Delete] = ()
    ) -> bool:
        """With what else belongs into that commit. False when somebody changed any of it since it was read."""
        try:
            await self._commit(stored, changed, *besides)
        except RevisionConflict:
            return False
        return True

    async def rename(
        self, container_id: str, new_name: str, change: Callable[[ContainerRecord], Changed]
    ) -> ContainerRecord | None:
        """As `update`, and move the name. Raises RevisionConflict when another container holds it."""
        for _ in range(_MAX_ATTEMPTS):
            stored = await self.get(container_id)
            if stored is None:
                return None
            changed = change(stored.record)
            names: list[Put | Delete] = [
                Delete(key=_name_key(stored.record.name)),
                Put(key=_name_key(new_name), value=container_id.encode(), expected_revision=0),
            ]
            try:
                await self._commit(stored, changed, *names)
            except RevisionConflict as conflict:
                if conflict.key != _key(container_id):
                    raise
                continue
            return changed.record
        raise _contended(container_id)

    async def delete(
        self, container_id: str, event: Callable[[ContainerRecord], Event] | None = None, *, on_node: str = ""
    ) -> None:
        """Remove the record, its name, its request id and its booking, with the event of it. Nothing there, or not
        `on_node` any more: nothing happens."""
        for _ in range(_MAX_ATTEMPTS):
            stored = await self.get(container_id)
            if stored is None or on_node not in ("", stored.record.node) or await self._deleted(stored, event):
                return
        raise _contended(container_id)

    async def _deleted(self, stored: Stored[ContainerRecord], event: Callable[[ContainerRecord], Event] | None) -> bool:
        record = stored.record
        async with self._usages.turn(record.node) if record.booked else nullcontext():
            operations: list[Put | Delete] = [
                Delete(key=_key(record.id), expected_revision=stored.revision),
                Delete(key=_name_key(record.name)),
                *await self._usages.released(record.node, record.booked),
            ]
            if record.request_id:
                operations.append(Delete(key=_request_key(record.request_id)))
            if event is not None:
                operations += self._events.puts([event(record)])
            try:
                await self._store.commit(*operations)
            except RevisionConflict:
                return False
            return True

    async def watch(self, container_id: str) -> AsyncGenerator[ContainerRecord | None]:
        """The record as it stands, then every change of it; None when it is removed, which ends it."""
        revision = await self._store.revision()
        stored = await self.get(container_id)
        yield stored.record if stored is not None else None
        if stored is None:
            return
        async for change in self._store.watch(_key(container_id), after=revision):
            if change.value is None:
                yield None
                return
            yield self._codec.decode(Entry(key=change.key, value=change.value, revision=change.revision)).record

    async def watch_all(self, *, after: int, about: Callable[[bytes], bool]) -> AsyncGenerator[Seen]:
        """Every change of a revision greater than `after` whose value `about` chooses, and every removal. One that
        cannot be read is left out. Raises OutOfRange (`CURSOR_GONE`)."""
        async for change in self._store.watch(_key(""), after=after):
            container_id = change.key.removeprefix(_key(""))
            if change.value is None or not about(change.value):
                yield Seen(id=container_id, record=None, revision=change.revision)
                continue
            for record in self._codec.readable([Entry(key=change.key, value=change.value, revision=change.revision)]):
                yield Seen(id=container_id, record=record, revision=change.revision)

    async def revision(self) -> int:
        """Of the last change of anything, as far as reads here include it."""
        return await self._store.revision()

    async def latest_revision(self) -> int | None:
        """Of the last change of anything, by whichever process; None when nobody can tell just now."""
        return await self._store.revision() if await self._store.catch_up() else None

    async def _commit(self, stored: Stored[ContainerRecord], changed: Changed, *more: Put | Delete) -> None:
        record = Put(
            key=_key(stored.record.id),
            value=self._codec.encode(changed.record),
            expected_revision=stored.revision,
        )
        told = self._events.puts(changed.events)
        for source, events in changed.sourced.items():
            told += self._events.puts(events, source=source, first=len(told))
        revision = await self._events.commit(record, *more, *told)
        self._codec.written(record.key, changed.record, revision)

    async def _shown(self, container_id: str) -> ContainerRecord | None:
        stored = await self.get(container_id)
        if stored is None or stored.record.phase is Phase.CREATING:
            return None
        return stored.record

    async def _with_prefix(self, prefix: str) -> list[ContainerRecord]:
        entries = await self._store.list(_key(prefix), limit=4 * _MAX_CANDIDATES)
        return [record for record in self._codec.readable(entries) if record.phase is not Phase.CREATING]


def no_such_container(reference: str) -> NotFound:
    return NotFound(
        f"No such container: {reference}; ContainerService.ListContainers with `all` shows those there are",
        resource_type="container",
        resource_name=reference,
        reason="CONTAINER_NOT_FOUND",
    )


def _ambiguous(prefix: str, matches: Sequence[ContainerRecord]) -> InvalidArgument:
    shown = ", ".join(f"{record.id[:12]} ({record.name})" for record in matches[:_MAX_CANDIDATES])
    rest = " and more" if len(matches) > _MAX_CANDIDATES else ""
    text = f"{prefix!r} is the beginning of several ids: {shown}{rest}; give more of the id, or the name"
    return InvalidArgument(
        text, violations=[Violation(field="container", description=text)], reason="AMBIGUOUS_CONTAINER"
    )


def _contended(container_id: str) -> Aborted:
    return Aborted(f"container {container_id[:12]}: others change its record all the time; repeat the request")


def _key(container_id: str) -> str:
    return f"{_PREFIX}{container_id}"


def _name_key(name: str) -> str:
    return f"names/{name}"


def _request_key(request_id: str) -> str:
    # It is any text at all, and a key is not.
    return f"requests/{quote(request_id, safe='')}"
