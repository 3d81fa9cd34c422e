"""All containers, by the time of their creation and by what they are asked for most.

Kept up by the store's changes, so that a list looks at what it answers with and not at every record there is: with tens
of thousands that takes longer than everything else together.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set

import structlog

from api_service.records.codec import Codec
from api_service.records.container import ContainerRecord, Phase, Status
from api_service.store.store import Change, Entry, Store
from common.errors import SlipwayError

_log = structlog.get_logger(__name__)

Term = tuple[str, ...]
"""Something that holds of a container or does not."""

Place = tuple[int, str]
"""Where a container stands: the time of its creation, and among equally old ones its id."""

ACTIVE: Term = ("active",)
_AT_ONCE = 200  # entries
_KEEP_UP = 1.0  # seconds
_NOT_LOADED = -1


def with_label(text: str) -> Term:
    """`key` or `key=value`."""
    key, equals, value = text.partition("=")
    return ("label", key, value) if equals else ("label", key)


def with_status(status: Status) -> Term:
    return ("status", status.value)


def on_node(name: str) -> Term:
    return ("node", name)


def place_of(record: ContainerRecord) -> Place:
    return record.created_at, record.id


class ContainerIndex:
    """Belongs to the event loop. Raises what the store raises."""

    def __init__(self, store: Store, codec: Codec[ContainerRecord], prefix: str) -> None:
        self._store = store
        self._codec = codec
        self._prefix = prefix
        self._seen = _NOT_LOADED  # the revision up to which everything is included
        self._records: dict[str, ContainerRecord] = {}  # by id
        self._order: list[Place] = []  # of those that are shown
        self._having: defaultdict[Term, set[str]] = defaultdict(set)  # ids
        self._counts: Counter[str] = Counter()  # by node
        self._catching_up = asyncio.Lock()

    async def newest_first(
        self, having: Sequence[Set[Term]] = (), *, before: Place | None = None, since: Place | None = None
    ) -> Iterator[ContainerRecord]:
        """Those that are shown and have one term at least of each set, between the two places. To be taken before
        anything else is awaited."""
        await self._catch_up()
        begin = bisect_right(self._order, since) if since is not None else 0
        end = bisect_left(self._order, before) if before is not None else len(self._order)
        places = reversed(self._order[begin:end])
        if not having:
            return (self._records[container_id] for _, container_id in places)
        chosen, *others = sorted(map(self._with_any, having), key=len)
        if others:
            chosen = chosen.intersection(*others)
        return (self._records[container_id] for _, container_id in places if container_id in chosen)

    async def having(self, term: Term) -> Sequence[ContainerRecord]:
        """Of whatever phase, in no order."""
        await self._catch_up()
        return [self._records[container_id] for container_id in self._having.get(term, ())]

    async def counts(self) -> Mapping[str, int]:
        """How many, of whatever phase, are on each node that has any. To be read before anything else is awaited."""
        await self._catch_up()
        return self._counts

    async def keep_up_forever(self) -> None:
        """Of changes that nobody has asked about for long the store may have too many to tell them."""
        while True:
            try:
                await self._catch_up()
            except SlipwayError as error:
                _log.warning("index of containers not kept up", error=error.message)
            except Exception as error:
                # A bug must not end the keeping up for good.
                _log.error("index of containers not kept up", exc_info=error)
            await asyncio.sleep(_KEEP_UP)

    def _with_any(self, terms: Set[Term]) -> set[str]:
        found = [self._having[term] for term in terms if term in self._having]
        return found[0] if len(found) == 1 else set[str]().union(*found)

    async def _catch_up(self) -> None:
        async with self._catching_up:
            while (found := await self._store.changes(self._prefix, after=self._seen)) is None:
                await self._load()
            changes, seen = found
            for change in {change.key: change for change in changes}.values():
                self._take(change)
            self._seen = seen

    async def _load(self) -> None:
        self._seen = _NOT_LOADED
        revision = await self._store.revision()
        entries = await self._store.list(self._prefix)
        self._records, self._having, self._counts = {}, defaultdict(set), Counter()
        for index, entry in enumerate(entries):
            for record in self._codec.each_readable([entry]):
                self._records[record.id] = record
                self._note(record)
            if index % _AT_ONCE == 0:
                await asyncio.sleep(0)  # to decode tens of thousands takes seconds
        self._order = sorted(map(place_of, filter(_is_shown, self._records.values())))
        self._seen = revision

    def _take(self, change: Change) -> None:
        before = self._records.pop(change.key.removeprefix(self._prefix), None)
        if before is not None:
            self._forget(before)
        if change.value is not None:
            entry = Entry(key=change.key, value=change.value, revision=change.revision)
            for record in self._codec.each_readable([entry]):
                self._records[record.id] = record
                self._note(record)
                if _is_shown(record):
                    insort(self._order, place_of(record))

    def _note(self, record: ContainerRecord) -> None:
        self._counts[record.node] += 1
        for term in _terms(record):
            self._having[term].add(record.id)

    def _forget(self, record: ContainerRecord) -> None:
        if _is_shown(record):
            del self._order[bisect_left(self._order, place_of(record))]
        self._counts[record.node] -= 1
        for term in _terms(record):
            self._having[term].discard(record.id)
            if not self._having[term]:
                del self._having[term]


def _is_shown(record: ContainerRecord) -> bool:
    return record.phase is not Phase.CREATING


def _terms(record: ContainerRecord) -> Iterator[Term]:
    yield on_node(record.node)
    yield with_status(record.status)
    if record.state.active:
        yield ACTIVE
    for key, value in record.config.labels.items():
        yield "label", key
        yield "label", key, value
