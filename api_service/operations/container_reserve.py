"""The first commit of a create: the record with its name, its request id, its volumes and its room on the node, all of
them or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from api_service.operations.container_placement import NodeTakenError, booked
from api_service.operations.engine import Engine
from api_service.operations.mount_plan import MountPlan
from api_service.records.container import ContainerRecord
from api_service.records.event_shapes import volume_event
from api_service.records.node_repository import is_unwanted
from api_service.store.store import RevisionConflict
from api_service.validation.names import NAME_ATTEMPTS, generate_name, short_id
from common.errors import Aborted, AlreadyExists

_CLAIM_ATTEMPTS = 32  # each failure means that somebody else changed one of the volumes


async def reserve_container(
    engine: Engine, draft: ContainerRecord, plan: MountPlan, *, name: str
) -> ContainerRecord | None:
    """The record with its name and volumes, written; None when another create holds the request id. Raises
    AlreadyExists, and FailedPrecondition for a volume that cannot be used."""
    for candidate in [name] if name else _generated_names(draft.id):
        record = dataclasses.replace(draft, name=candidate)
        try:
            await _add(engine, record, plan)
        except RevisionConflict as conflict:
            if engine.containers.held_request(conflict):
                return None
            if name and (holder := engine.containers.held_name(conflict)) is not None:
                raise name_taken(name, holder) from conflict
            continue
        return record
    raise Aborted(f"container name {name or 'generated'!r}: others take and release it; repeat the request")


async def _add(engine: Engine, record: ContainerRecord, plan: MountPlan) -> None:
    """Raises RevisionConflict for its name or request id, NodeTakenError; volumes that others change meanwhile are
    claimed again, and so is room on the node."""
    for _ in range(_CLAIM_ATTEMPTS):
        claim = await engine.volumes.claim(plan.volumes, record.id)
        made = [volume_event(volume, "create", engine.clock()) for volume in claim.made]
        try:
            async with booked(engine, record) as booking:
                await engine.containers.add(record, besides=[*claim.operations, *booking], events=made)
        except RevisionConflict as conflict:
            if is_unwanted(conflict):
                raise NodeTakenError from conflict
            if not engine.volumes.held_volume(conflict) and not engine.usages.held_usage(conflict):
                raise
            continue
        return
    raise Aborted(f"container {record.name!r}: others change its volumes all the time; repeat the request")


def _generated_names(container_id: str) -> Iterator[str]:
    yield from (generate_name(attempt) for attempt in range(1, NAME_ATTEMPTS + 1))
    yield short_id(container_id)


def name_taken(name: str, holder: str) -> AlreadyExists:
    return AlreadyExists(
        f"Conflict. The container name {name!r} is already in use by container {holder!r}. You have to remove "
        "(or rename) that container to be able to reuse that name.",
        resource_type="container",
        resource_name=name,
        owner=holder,
        reason="CONTAINER_NAME_IN_USE",
    )
