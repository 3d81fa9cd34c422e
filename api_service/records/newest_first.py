"""Containers by the time of their creation, newest first, without decoding or sorting all of them for each page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from api_service.records.codec import Codec
from api_service.records.container import ContainerRecord
from api_service.store.store import Entry


class NewestFirst:
    """Remembers when what was listed last was created, and in which order that is: nothing is sorted unless some came
    or went."""

    def __init__(self, codec: Codec[ContainerRecord]) -> None:
        self._codec = codec
        self._order: list[int] = []  # places in `_listed`, newest first
        self._listed: list[str] = []
        self._created: dict[str, int] = {}  # times, by key

    def ordered(self, entries: Sequence[Entry]) -> Iterator[Entry]:
        """Equally old ones by their keys. One that cannot be read is the oldest."""
        listed = [entry.key for entry in entries]
        if listed != self._listed:
            known = self._created
            self._created = {entry.key: known.get(entry.key) or self._time(entry) for entry in entries}
            self._listed = listed
            places = range(len(listed))
            self._order = sorted(places, key=lambda at: (self._created[listed[at]], listed[at]), reverse=True)
        return (entries[at] for at in self._order)

    def _time(self, entry: Entry) -> int:
        return next((record.created_at for record in self._codec.each_readable([entry])), 0)
