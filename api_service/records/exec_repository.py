"""Execs in the store: `exec/<id>`, and an empty `container-exec/<container>/<id>` that finds those of a container."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from time import monotonic

import structlog

from api_service.records.codec import Codec
from api_service.records.event import Event
from api_service.records.event_log import EventLog
from api_service.records.exec import ExecRecord
from api_service.store.store import Delete, Put, RevisionConflict, Store
from common.errors import Aborted, InvalidArgument, NotFound, SlipwayError, Violation

_log = structlog.get_logger(__name__)

_PREFIX = "exec/"
_OF_CONTAINER = "container-exec/"
_MAX_ATTEMPTS = 16
_MAX_TOGETHER = 50  # execs in one commit, which holds two deletes for each
_KEPT = 5 * 60.0  # seconds after its end
_KEPT_UNSTARTED = 60 * 60.0  # seconds after its creation, when nobody starts it
_SWEEP = 60.0  # seconds
MAX_EXECS = 1000  # of one container


class ExecRepository:
    """`clock`: nanoseconds since the epoch."""

    def __init__(self, store: Store, events: EventLog, *, clock: Callable[[], int]) -> None:
        self._store = store
        self._events = events
        self._clock = clock
        self._elapsed = monotonic  # a clock that nobody sets
        # Since when what does not run is known, by id and whether it ran.
        self._idle: dict[tuple[str, bool], float] = {}
        self._codec = Codec(ExecRecord)

    async def find(self, reference: str) -> ExecRecord:
        """By its id or a unique prefix of it. Raises NotFound, and InvalidArgument when several begin like that."""
        entries = await self._store.list(f"{_PREFIX}{reference}", limit=2)
        if not entries:
            raise NotFound(
                f"No such exec: {reference}; it may have been forgotten, five minutes after its end",
                resource_type="exec",
                resource_name=reference,
                reason="EXEC_NOT_FOUND",
            )
        if len(entries) > 1 and entries[0].key != f"{_PREFIX}{reference}":
            text = f"{reference!r} is the beginning of several ids; give more of it"
            raise InvalidArgument(text, violations=[Violation(field="exec", description=text)], reason="AMBIGUOUS_EXEC")
        return self._codec.decode(entries[0]).record

    async def of(self, container_id: str) -> list[ExecRecord]:
        """The container's that can be read, ordered by id."""
        found = [await self._store.get(_key(exec_id)) for exec_id in await self._ids_of(container_id)]
        return self._codec.readable(entry for entry in found if entry is not None)

    async def count(self, container_id: str) -> int:
        """How many are kept of the container."""
        return len(await self._ids_of(container_id))

    async def running(self) -> list[ExecRecord]:
        """Those that are said to run, in any container."""
        return [record for record in await self._all() if record.running]

    async def add(self, record: ExecRecord, event: Event) -> None:
        put = Put(key=_key(record.id), value=self._codec.encode(record), expected_revision=0)
        listed = Put(key=_listed_key(record.container_id, record.id), value=b"")
        await self._store.commit(put, listed, *self._events.puts([event]))

    async def update(
        self, exec_id: str, change: Callable[[ExecRecord], ExecRecord | None], events: Sequence[Event] = ()
    ) -> ExecRecord | None:
        """Apply `change` to the record as it stands, and tell the events with it; its None leaves all alone. None comes
        back when it was forgotten."""
        for _ in range(_MAX_ATTEMPTS):
            entry = await self._store.get(_key(exec_id))
            if entry is None:
                return None
            stored = self._codec.decode(entry)
            changed = change(stored.record)
            if changed is None:
                return stored.record
            put = Put(key=_key(exec_id), value=self._codec.encode(changed), expected_revision=stored.revision)
            try:
                await self._events.commit(put, *self._events.puts(events))
            except RevisionConflict:
                continue
            return changed
        raise Aborted(f"exec {exec_id[:12]}: others change its record all the time; repeat the request")

    async def finish(self, exec_id: str, *, container_id: str, exit_code: int | None, error: str, time: int) -> None:
        """It has ended; whoever says so first is right. One of another container is left alone."""

        def change(record: ExecRecord) -> ExecRecord | None:
            if record.finished_at is not None or record.container_id != container_id:
                return None
            started_at = record.started_at if record.started_at is not None else time
            return dataclasses.replace(
                record,
                started_at=started_at,
                finished_at=max(time, started_at),  # which are two machines' clocks
                pid=0,
                exit_code=exit_code,
                error=error,
            )

        await self.update(exec_id, change)

    async def lose(self, container_id: str, error: str) -> None:
        """What ran in a container that runs no more has ended, and nobody saw how."""
        for record in await self.of(container_id):
            if record.running:
                await self.finish(record.id, container_id=container_id, exit_code=None, error=error, time=self._clock())

    async def forget(self, container_id: str) -> None:
        """Those of a container that is removed."""
        await self._delete([(container_id, exec_id) for exec_id in await self._ids_of(container_id)])

    async def forget_old_forever(self) -> None:
        """Whatever fails meanwhile."""
        while True:
            await asyncio.sleep(_SWEEP)
            try:
                await self.forget_old()
            except SlipwayError as error:
                _log.warning("ended execs not forgotten", error=error.message)

    async def forget_old(self) -> None:
        """What is known here for long enough as ended, or as created and not started. The times of the records do not
        count: they are of other machines' clocks."""
        now = self._elapsed()
        idle = {
            (record.id, record.started_at is not None): record for record in await self._all() if not record.running
        }
        self._idle = {key: self._idle.get(key, now) for key in idle}
        await self._delete(
            [
                (record.container_id, record.id)
                for key, record in idle.items()
                if now - self._idle[key] > (_KEPT if key[1] else _KEPT_UNSTARTED)
            ]
        )

    async def _delete(self, execs: Sequence[tuple[str, str]]) -> None:
        """By the container and the exec's id: what cannot be read goes as well."""
        for at in range(0, len(execs), _MAX_TOGETHER):
            together = execs[at : at + _MAX_TOGETHER]
            await self._store.commit(
                *(Delete(key=key) for each in together for key in (_key(each[1]), _listed_key(*each)))
            )

    async def _ids_of(self, container_id: str) -> list[str]:
        prefix = f"{_OF_CONTAINER}{container_id}/"
        return [entry.key.removeprefix(prefix) for entry in await self._store.list(prefix)]

    async def _all(self) -> list[ExecRecord]:
        """Those that can be read."""
        return self._codec.readable(await self._store.list(_PREFIX))


def _key(exec_id: str) -> str:
    return f"{_PREFIX}{exec_id}"


def _listed_key(container_id: str, exec_id: str) -> str:
    return f"{_OF_CONTAINER}{container_id}/{exec_id}"
