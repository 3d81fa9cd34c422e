"""The images in the store: `images/<hex id>`, and `image-names/<repository:tag or @digest>` to an id.

A name means one image at a time; both sides of that are written in one commit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Sequence

from api_service.records.codec import Codec
from api_service.records.event import Event
from api_service.records.event_log import EventLog
from api_service.records.image import ImageRecord
from api_service.store.store import Delete, Put, RevisionConflict, Store
from common.errors import Aborted, InvalidArgument, Violation

_MAX_ATTEMPTS = 16
_MAX_CANDIDATES = 10


class ImageRepository:
    """Every method raises what the store raises."""

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._codec = Codec(ImageRecord)

    async def get(self, image_id: str) -> ImageRecord | None:
        """By its whole id, `sha256:<hex>`."""
        entry = await self._store.get(_key(image_id))
        return self._codec.decode(entry).record if entry is not None else None

    async def named(self, name: str) -> ImageRecord | None:
        """By one of its names, `repository:tag`, or digests, `repository@sha256:<hex>`."""
        entry = await self._store.get(_name_key(name))
        return await self.get(entry.value.decode()) if entry is not None else None

    async def with_prefix(self, hex_prefix: str) -> ImageRecord | None:
        """By the beginning of its id's hex. Raises InvalidArgument (`AMBIGUOUS_IMAGE`) when several begin so."""
        entries = await self._store.list(f"images/{hex_prefix}", limit=_MAX_CANDIDATES)
        if len(entries) > 1:
            shown = ", ".join(entry.key.removeprefix("images/")[:12] for entry in entries)
            text = f"{hex_prefix!r} is the beginning of several image ids: {shown}; give more of the id, or a name"
            raise InvalidArgument(
                text, violations=[Violation(field="image", description=text)], reason="AMBIGUOUS_IMAGE"
            )
        return self._codec.decode(entries[0]).record if entries else None

    async def all(self) -> list[ImageRecord]:
        """All that can be read, in no order."""
        return self._codec.readable(await self._store.list("images/"))

    async def add(self, image: ImageRecord, events: Sequence[Event]) -> ImageRecord:
        """Write the image; one that is there keeps its names, digests and nodes and gets these as well. What
        it is newly named by leaves the images that had it. Returns the record as written."""
        for _ in range(_MAX_ATTEMPTS):
            entry = await self._store.get(_key(image.id))
            held = self._codec.decode(entry).record if entry is not None else None
            merged = image if held is None else _merged(held, image)
            operations = [
                Put(
                    key=_key(image.id),
                    value=self._codec.encode(merged),
                    expected_revision=entry.revision if entry is not None else 0,
                ),
                *await self._move_names(image.references, image.id),
            ]
            if await self._committed(*operations, *self._events.puts(events)):
                return merged
        raise _contended(image.id)

    async def adopt(self, image: ImageRecord) -> None:
        """Write an image found on a node, without event, with those of its names that nobody has. One that is there
        stays as it is."""
        for _ in range(_MAX_ATTEMPTS):
            free = [name for name in image.names if await self._store.get(_name_key(name)) is None]
            record = dataclasses.replace(image, names=tuple(free))
            if await self.get(image.id) is not None or await self._committed(
                Put(key=_key(image.id), value=self._codec.encode(record), expected_revision=0),
                *(Put(key=_name_key(name), value=image.id.encode(), expected_revision=0) for name in free),
            ):
                return
        raise _contended(image.id)

    async def set_nodes(self, image_id: str, nodes: tuple[str, ...]) -> None:
        for _ in range(_MAX_ATTEMPTS):
            entry = await self._store.get(_key(image_id))
            if entry is None:
                return
            record = dataclasses.replace(self._codec.decode(entry).record, nodes=nodes)
            if await self._committed(
                Put(key=entry.key, value=self._codec.encode(record), expected_revision=entry.revision)
            ):
                return
        raise _contended(image_id)

    async def untag(self, image_id: str, references: Collection[str], events: Sequence[Event]) -> None:
        """Take names and digests from the image; the image stays."""
        for _ in range(_MAX_ATTEMPTS):
            entry = await self._store.get(_key(image_id))
            if entry is None:
                return
            record = self._codec.decode(entry).record
            if await self._committed(
                Put(
                    key=entry.key,
                    value=self._codec.encode(_without(record, references)),
                    expected_revision=entry.revision,
                ),
                *(Delete(key=_name_key(name)) for name in record.references if name in references),
                *self._events.puts(events),
            ):
                return
        raise _contended(image_id)

    async def condemn(self, image_id: str, events: Sequence[Event]) -> None:
        """Take all names and digests from the image and hide it."""
        for _ in range(_MAX_ATTEMPTS):
            entry = await self._store.get(_key(image_id))
            if entry is None:
                return
            record = self._codec.decode(entry).record
            hidden = dataclasses.replace(record, names=(), digests=(), condemned=True)
            if await self._committed(
                Put(key=entry.key, value=self._codec.encode(hidden), expected_revision=entry.revision),
                *(Delete(key=_name_key(name)) for name in record.references),
                *self._events.puts(events),
            ):
                return
        raise _contended(image_id)

    async def delete(self, image_id: str, events: Sequence[Event]) -> None:
        """Remove the image with all its names and digests."""
        for _ in range(_MAX_ATTEMPTS):
            entry = await self._store.get(_key(image_id))
            if entry is None:
                return
            record = self._codec.decode(entry).record
            if await self._committed(
                Delete(key=entry.key, expected_revision=entry.revision),
                *(Delete(key=_name_key(name)) for name in record.references),
                *self._events.puts(events),
            ):
                return
        raise _contended(image_id)

    async def _move_names(self, names: Iterable[str], image_id: str) -> list[Put | Delete]:
        """What gives the names to the image, and takes them from the images that have them now."""
        operations: list[Put | Delete] = []
        losers: dict[str, set[str]] = {}
        for name in names:
            held = await self._store.get(_name_key(name))
            operations.append(
                Put(key=_name_key(name), value=image_id.encode(), expected_revision=held.revision if held else 0)
            )
            if held is not None and (owner := held.value.decode()) != image_id:
                losers.setdefault(owner, set()).add(name)
        for owner, lost in losers.items():
            entry = await self._store.get(_key(owner))
            if entry is not None:
                record = self._codec.decode(entry).record
                operations.append(
                    Put(
                        key=entry.key,
                        value=self._codec.encode(_without(record, lost)),
                        expected_revision=entry.revision,
                    )
                )
        return operations

    async def _committed(self, *operations: Put | Delete) -> bool:
        try:
            await self._store.commit(*operations)
        except RevisionConflict:
            return False
        return True


def _merged(held: ImageRecord, new: ImageRecord) -> ImageRecord:
    names = dict.fromkeys((*held.names, *new.names))
    digests = dict.fromkeys((*held.digests, *new.digests))
    nodes = dict.fromkeys((*held.nodes, *new.nodes))
    return dataclasses.replace(held, names=tuple(names), digests=tuple(digests), nodes=tuple(nodes), condemned=False)


def _without(image: ImageRecord, references: Collection[str]) -> ImageRecord:
    return dataclasses.replace(
        image,
        names=tuple(name for name in image.names if name not in references),
        digests=tuple(digest for digest in image.digests if digest not in references),
    )


def _contended(image_id: str) -> Aborted:
    return Aborted(f"image {image_id}: others change its record all the time; repeat the request")


def _key(image_id: str) -> str:
    return f"images/{image_id.removeprefix('sha256:')}"


def _name_key(name: str) -> str:
    return f"image-names/{name}"
