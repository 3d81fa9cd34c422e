"""The volumes in the store: `volumes/<name>`.

Who uses a volume stands in the containers' records. A commit that makes a container use one writes the volume's entry
again, too, so that a removal which saw no user then finds the entry changed, and neither can overlook the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from api_service.records.codec import Codec, Stored
from api_service.records.event import Event
from api_service.records.event_log import EventLog
from api_service.records.node_repository import NodeGoing, is_unwanted, wanted
from api_service.records.volume import VolumeRecord
from api_service.store.store import Delete, Put, RevisionConflict, Store
from common.errors import Aborted, FailedPrecondition, NotFound

_MAX_ATTEMPTS = 16
_PREFIX = "volumes/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What the commit of a container has to write besides. `made` are the volumes that did not exist."""

    operations: Sequence[Put]
    made: Sequence[VolumeRecord]


class VolumeRepository:
    """Every method raises what the store raises."""

    def __init__(self, store: Store, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._codec = Codec(VolumeRecord)

    async def get(self, name: str) -> Stored[VolumeRecord] | None:
        entry = await self._store.get(_key(name))
        return self._codec.decode(entry) if entry is not None else None

    async def find(self, name: str) -> VolumeRecord:
        """Raises NotFound."""
        stored = await self.get(name)
        if stored is None:
            raise no_such_volume(name)
        return stored.record

    async def all(self) -> list[VolumeRecord]:
        """By name, those that can be read."""
        return self._codec.readable(await self._store.list(_PREFIX))

    async def add(self, volume: VolumeRecord, events: Sequence[Event]) -> bool:
        """False when one of that name is there. Raises NodeGoing."""
        put = Put(key=_key(volume.name), value=self._codec.encode(volume), expected_revision=0)
        try:
            await self._store.commit(put, wanted(volume.node), *self._events.puts(events))
        except RevisionConflict as conflict:
            if is_unwanted(conflict):
                raise NodeGoing(volume.node) from conflict
            return False
        return True

    async def claim(self, wanted: Iterable[VolumeRecord], container_id: str) -> Claim:
        """`wanted` as they are to be made if they do not exist. Raises FailedPrecondition for one that is being
        removed (`VOLUME_BEING_REMOVED`), that has other options than are wanted (`VOLUME_DIFFERS`), or that is on
        another node (`VOLUME_ELSEWHERE`)."""
        operations: list[Put] = []
        made: list[VolumeRecord] = []
        for volume in wanted:
            stored = await self.get(volume.name)
            if stored is None:
                made.append(volume)
                record = volume
            else:
                record = _usable(stored.record, volume)
                if record.made_for != container_id:
                    record = replace(record, made_for="")
            revision = stored.revision if stored is not None else 0
            operations.append(Put(key=_key(record.name), value=self._codec.encode(record), expected_revision=revision))
        return Claim(operations=operations, made=made)

    def new(self, volumes: Iterable[VolumeRecord]) -> list[Put]:
        """What a commit has to write for volumes that nobody can know yet."""
        return [Put(key=_key(one.name), value=self._codec.encode(one), expected_revision=0) for one in volumes]

    @staticmethod
    def held_volume(conflict: RevisionConflict) -> bool:
        """Whether a commit failed because somebody changed a volume that it claims."""
        return conflict.key.startswith(_PREFIX)

    async def update(self, name: str, change: Callable[[VolumeRecord], VolumeRecord | None]) -> VolumeRecord | None:
        """Apply `change` to the record as it stands; its None leaves it alone. None: there is no such volume."""
        for _ in range(_MAX_ATTEMPTS):
            stored = await self.get(name)
            if stored is None:
                return None
            changed = change(stored.record)
            if changed is None or changed == stored.record:
                return stored.record
            if await self.replace(stored, changed):
                return changed
        raise contended(name)

    async def replace(self, stored: Stored[VolumeRecord], changed: VolumeRecord) -> bool:
        """False when somebody was faster."""
        key = _key(stored.record.name)
        return await self._committed(Put(key=key, value=self._codec.encode(changed), expected_revision=stored.revision))

    async def delete(self, name: str, event: Callable[[VolumeRecord], Event]) -> None:
        """Nothing there: nothing happens."""
        for _ in range(_MAX_ATTEMPTS):
            stored = await self.get(name)
            if stored is None:
                return
            gone = Delete(key=_key(name), expected_revision=stored.revision)
            if await self._committed(gone, *self._events.puts([event(stored.record)])):
                return
        raise contended(name)

    async def _committed(self, *operations: Put | Delete) -> bool:
        try:
            await self._store.commit(*operations)
        except RevisionConflict:
            return False
        return True


def no_such_volume(name: str) -> NotFound:
    return NotFound(
        f"No such volume: {name[:260]}; VolumeService.ListVolumes shows those there are",
        resource_type="volume",
        resource_name=name[:260],
        reason="VOLUME_NOT_FOUND",
    )


def contended(name: str) -> Aborted:
    return Aborted(f"volume {name!r}: others change its record all the time; repeat the request")


def _usable(found: VolumeRecord, wanted: VolumeRecord) -> VolumeRecord:
    if found.removing:
        why, reason = "is being removed; repeat the request when it is gone", "VOLUME_BEING_REMOVED"
    elif found.node != wanted.node:
        why = f"is on node {found.node!r}, and the container on {wanted.node!r}; repeat the request"
        reason = "VOLUME_ELSEWHERE"
    elif wanted.options and dict(wanted.options) != dict(found.options):
        why = "exists with other driver options; leave them out to use it, or choose another name"
        reason = "VOLUME_DIFFERS"
    else:
        return found
    raise FailedPrecondition(
        f"volume {found.name!r} {why}", resource_type="volume", resource_name=found.name, reason=reason
    )


def _key(name: str) -> str:
    return f"{_PREFIX}{name}"
