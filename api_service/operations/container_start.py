"""Start a container's process, and before it what it depends on."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from api_service.deadline import Deadline
from api_service.executor_client.journal import JournalEntry, Started, StartRefused
from api_service.nodes.registry import Node
from api_service.operations.container_halt import resume
from api_service.operations.container_state import current, refuse_when_going, refuse_when_moving, wrong_state
from api_service.operations.dependency_start import meet_dependencies
from api_service.operations.engine import Engine
from api_service.operations.jobs import whole
from api_service.records.asked import named_as_asked
from api_service.records.container import ContainerRecord, Status
from api_service.records.event import Event
from api_service.records.event_shapes import container_event
from common.errors import START_INTERRUPTED, AlreadyExists, SlipwayError, StartFailed, Unavailable


async def start_container(engine: Engine, container: str, *, deadline: Deadline) -> bool:
    """True when it ran already. One that waits for its restart is started at once. Raises StartFailed,
    FailedPrecondition, DeadlineExceeded (reason `DEPENDENCY_TOO_LATE`), NotFound, Unavailable.

    Reads need not be up to date before: the container's lock brings them there in the round trip that it takes anyway,
    and what is known here is enough to know which lock that is. Once begun it goes on to its end without the client: a
    start is done or undone, never half.
    """
    if (known := await _known_to_start(engine, container)) is not None:
        with suppress(_AnotherMeantError):
            work = _start(engine, known, deadline, asked=container)
            return await engine.jobs.finish(work, name=f"start {known.name}")
    await engine.catch_up()
    record = await engine.containers.find(container)
    if _runs(record):
        return True
    return await engine.jobs.finish(_start(engine, record, deadline), name=f"start {record.name}")


class _AnotherMeantError(Exception):
    """What was asked for is another container by now than was known here."""


async def _known_to_start(engine: Engine, container: str) -> ContainerRecord | None:
    """As it is known here, if nothing is said or done because of that before its lock is held."""
    with suppress(SlipwayError):
        record = await engine.containers.find(container)
        if not _runs(record) and not record.host_config.depends_on:
            return record
    return None


async def start_dependencies(engine: Engine, record: ContainerRecord, deadline: Deadline) -> None:
    """Start what it depends on and wait for it. Before the container's own lock is taken: it may take long, and
    nothing of the container is under way yet."""
    await meet_dependencies(engine, record, lambda found: _start(engine, found, deadline), deadline)


async def start_again(engine: Engine, record: ContainerRecord, deadline: Deadline) -> None:
    """What its node has killed because the lease was over, unless it was stopped or moved meanwhile."""
    work = _start(engine, record, deadline, by_itself=True)
    await engine.jobs.finish(work, name=f"start {record.name}")


async def _start(
    engine: Engine, record: ContainerRecord, deadline: Deadline, *, asked: str = "", by_itself: bool = False
) -> bool:
    """`asked`: for what. Raises _AnotherMeantError when that is not this container."""
    await start_dependencies(engine, record, deadline)
    async with engine.locks.hold(record.id, "start", deadline), deadline.enforced("start the container"):
        if asked and (await engine.containers.find(asked)).id != record.id:
            raise _AnotherMeantError
        record = await current(engine, record.id)
        if _runs(record):
            return True
        if by_itself and (record.halted or not record.state.lease_over):
            return False
        record = await resume(engine, record)
        refuse_when_moving(record, "start")
        await start_locked(engine, record, deadline)
        return False


def _runs(record: ContainerRecord) -> bool:
    """Raises FailedPrecondition for one that is going or frozen."""
    refuse_when_going(record, "start")
    if record.status is Status.PAUSED:
        why = "cannot start it, it is paused; unpause it instead"
        raise wrong_state(record, why, reason="CONTAINER_PAUSED")
    return record.state.running


async def start_locked(engine: Engine, record: ContainerRecord, deadline: Deadline, *, told: str = "") -> None:
    """The start itself; the caller holds the container's lock and has checked its state. `told`: the event of the verb
    this start is a part of."""
    entry = await _outcome(engine, record, deadline, told=told)
    if _interrupted(entry) and not record.host_config.auto_remove:
        # It tells of an attempt before this one, which the executor's end cut short; this one is still to be made.
        entry = await _outcome(engine, await current(engine, record.id), deadline, told=told)
    if isinstance(entry.event, StartRefused):
        raise StartFailed(
            f"container {record.name!r}: {named_as_asked(entry.event.message, record)}",
            exit_code=entry.event.exit_code,
            reason=entry.event.reason,
            metadata={"container": record.id},
        )


async def _outcome(engine: Engine, record: ContainerRecord, deadline: Deadline, *, told: str) -> JournalEntry:
    """On record when this returns. `told` as for `start_locked`."""
    try:
        entry = await _ask_twice(engine, record, deadline)
    except AlreadyExists as error:
        raise await holder_named(engine, error) from error
    event = container_event(record, told, engine.clock()) if told and isinstance(entry.event, Started) else None
    await whole(_settle(engine, engine.nodes.get(record.node), entry, event))
    return entry


def _interrupted(entry: JournalEntry) -> bool:
    return isinstance(entry.event, StartRefused) and entry.event.reason == START_INTERRUPTED


async def _settle(engine: Engine, node: Node, entry: JournalEntry, event: Event | None) -> None:
    await node.settle(entry)
    if event is not None:
        await engine.events.add(event)


async def _ask_twice(engine: Engine, record: ContainerRecord, deadline: Deadline) -> JournalEntry:
    executor = engine.nodes.get(record.node).executor
    start_id = start_id_of(record)
    try:
        return await executor.containers.start(record.id, start_id=start_id, deadline=deadline)
    except Unavailable:
        # The answer may be lost and the start done. The same key gets the outcome of the first call.
        return await executor.containers.start(record.id, start_id=start_id, deadline=deadline)


async def holder_named(engine: Engine, error: AlreadyExists) -> AlreadyExists:
    """The executor knows a port's holder by its id only."""
    try:
        holder = await engine.containers.find(error.owner)
    except SlipwayError:
        return error  # a process of the node, or a container that is gone by now
    return AlreadyExists(
        error.message.replace(f"container {holder.id!r}", f"container {holder.name!r} ({holder.id[:12]})"),
        resource_type=error.resource_type,
        resource_name=error.resource_name,
        owner=error.owner,
        reason=error.reason,
    )


def start_id_of(record: ContainerRecord) -> str:
    """The key of the next start: the same for every attempt until the journal has told of an outcome."""
    seen = record.observed
    return hashlib.sha256(f"{record.id} {seen.journal_id} {seen.sequence}".encode()).hexdigest()[:32]
