"""Freeze a container, and let it go on.

It is frozen before that is on record and goes on after that is on record, so a crash in between leaves a frozen one
that is not on record as such: the next executor lets it go on, and freezes again what is (`supervision.adoption`).
"""

from __future__ import annotations

import structlog

from common.errors import FailedPrecondition, InvalidArgument, SlipwayError
from executor_service.container import ContainerSpec
from executor_service.container_record import ContainerRecord, Phase
from executor_service.host_errors import host_errors
from executor_service.journal_entries import JournalEntry, Paused, Unpaused
from executor_service.node import Node
from executor_service.operations.container_rules import id_violations
from executor_service.operations.running import running
from executor_service.tasks import bounded
from executor_service.threads import to_the_end

_log = structlog.get_logger(__name__)


async def container_pause(node: Node, container_id: str) -> JournalEntry | None:
    """The `paused` entry, None when it was frozen already. Raises NotFound, FailedPrecondition when it does not run,
    DeadlineExceeded when a process cannot be frozen; it goes on then."""
    if broken := id_violations(container_id):
        raise InvalidArgument(violations=broken)
    async with node.locks.hold(container_id):
        record, spec, _ = running(node, container_id)
        if record.phase is Phase.PAUSED:
            return None
        return await to_the_end(_freeze(node, spec))


async def _freeze(node: Node, spec: ContainerSpec) -> JournalEntry:
    with host_errors(f"container {spec.id!r}"):
        try:
            await node.seams.cgroups.freeze(spec)
            return await node.records.transition(spec.id, Paused(), only_in=Phase.RUNNING, phase=Phase.PAUSED)
        except BaseException:
            await bounded("freezer", lambda: node.seams.cgroups.thaw(spec), timeout=5, container=spec.id)
            raise


async def container_unpause(node: Node, container_id: str) -> JournalEntry | None:
    """The `unpaused` entry, None when it was not frozen. Raises NotFound, FailedPrecondition when it does not run."""
    if broken := id_violations(container_id):
        raise InvalidArgument(violations=broken)
    async with node.locks.hold(container_id):
        record, spec, _ = running(node, container_id)
        if record.phase is not Phase.PAUSED:
            return None
        return await to_the_end(_thaw(node, spec))


async def _thaw(node: Node, spec: ContainerSpec) -> JournalEntry:
    with host_errors(f"container {spec.id!r}"):
        entry = await node.records.transition(spec.id, Unpaused(), only_in=Phase.PAUSED, phase=Phase.RUNNING)
        await node.seams.cgroups.thaw(spec)
    return entry


async def let_go(node: Node, container_id: str) -> None:
    """Put on record that a container goes on because it is being ended, if it is frozen; `thaw_frozen` has to follow.
    Never raises: the end is what matters."""
    record = node.records.find(container_id)
    if record is None or record.phase is not Phase.PAUSED:
        return
    try:
        await node.records.transition(container_id, Unpaused(), only_in=Phase.PAUSED, phase=Phase.RUNNING)
    except FailedPrecondition:
        return  # it has just ended
    except SlipwayError as error:
        _log.error("an unpause cannot be journaled", container=container_id, error=error.message)


async def thaw_frozen(node: Node, container_id: str) -> None:
    """Let what is being ended go on: a v1 freezer keeps even SIGKILL waiting. Never raises."""
    record = node.records.find(container_id)
    spec = record.spec if record is not None else None
    if spec is not None:
        await bounded("freezer", lambda: node.seams.cgroups.thaw(spec), timeout=5, container=container_id)


async def align_freezer(node: Node, record: ContainerRecord) -> None:
    """After an executor died: what is on record holds. Never raises."""
    spec, cgroups = record.spec, node.seams.cgroups
    if spec is None:
        return
    async with node.locks.hold_patiently(record.id):
        found = node.records.find(record.id)
        if found is None or not found.phase.has_process:
            return
        try:
            if found.phase is Phase.PAUSED:
                await cgroups.freeze(spec)
            elif await cgroups.is_frozen(spec):
                await cgroups.thaw(spec)
        except (SlipwayError, OSError) as error:
            _log.error("freezer cannot be put right", container=record.id, error=str(error))
