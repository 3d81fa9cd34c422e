"""Records as JSON in the store, and back.

Decoding a container takes about 50 µs, and a list may look at all of them: what was decoded or written last is kept by
key and revision, which together name a value that never changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar, cast

import structlog
from pydantic import TypeAdapter, ValidationError

from api_service.store.store import Entry
from common.errors import Internal

T = TypeVar("T")

_log = structlog.get_logger(__name__)

RECORD_UNREADABLE = "RECORD_UNREADABLE"
"""Reason of an entry that is no record."""

_KEPT = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored(Generic[T]):
    """A record and the revision of the commit that wrote it."""

    record: T
    revision: int


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Of a container it takes tens of milliseconds to make, and it has no state."""
    return TypeAdapter(kind)


class Codec(Generic[T]):
    """Encodes one kind of record. Fields that a newer version added are dropped when they are unknown here. `kept`: so
    many decoded ones are."""

    def __init__(self, kind: type[T], *, kept: int = _KEPT) -> None:
        self._max_kept = kept
        self._adapter: TypeAdapter[T] = _adapter(cast("Hashable", kind))
        self._kept: OrderedDict[str, Stored[T]] = OrderedDict()
        self._unreadable: dict[str, int] = {}  # revisions by key

    def encode(self, record: T) -> bytes:
        """What has its default is left out, which makes defaults a part of the format: most of a container's record is
        them, and a store may hold tens of thousands in memory."""
        return self._adapter.dump_json(record, exclude_defaults=True)

    def decode(self, entry: Entry) -> Stored[T]:
        """Raises Internal when the value is not a record, which only a foreign hand or a downgrade can bring about."""
        kept = self._kept.get(entry.key)
        if kept is not None and kept.revision == entry.revision:
            self._kept.move_to_end(entry.key)
            return kept
        stored = Stored(record=self._parse(entry.key, entry.value), revision=entry.revision)
        self._keep(entry.key, stored)
        return stored

    def written(self, key: str, record: T, revision: int) -> None:
        """The commit of that revision wrote the record, which is not decoded when it is read again."""
        self._keep(key, Stored(record=record, revision=revision))

    def _keep(self, key: str, stored: Stored[T]) -> None:
        self._kept[key] = stored
        if len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)

    def readable(self, entries: Iterable[Entry]) -> list[T]:
        """See `each_readable`."""
        return list(self.each_readable(entries))

    def each_readable(self, entries: Iterable[Entry]) -> Iterator[T]:
        """The records among the entries. One that cannot be read is left out and logged once: it must not take all the
        others out of a list; whoever asks for it by its id is told."""
        for entry in entries:
            if self._unreadable.get(entry.key) == entry.revision:
                continue
            try:
                record = self.decode(entry).record
            except Internal as error:
                self._unreadable[entry.key] = entry.revision
                _log.error("record left out", key=entry.key, error=error.message)
            else:
                yield record

    def _parse(self, key: str, value: bytes) -> T:
        try:
            return self._adapter.validate_json(value)
        except ValidationError as error:
            raise Internal(
                f"the stored record {key} cannot be read by this version: {error.error_count()} fields are wrong",
                reason=RECORD_UNREADABLE,
                metadata={"key": key},
            ) from error
