"""Give a container another name, in one commit with the release of the old one."""

from __future__ import annotations

import dataclasses

from api_service.deadline import Deadline
from api_service.operations.container_reserve import name_taken
from api_service.operations.container_state import refuse_when_going
from api_service.operations.engine import Engine
from api_service.operations.network_connect import tell_names
from api_service.records.container import ContainerRecord
from api_service.records.container_repository import Changed, no_such_container
from api_service.records.event_shapes import container_event
from api_service.records.network import DEFAULT_NETWORK
from api_service.store.store import RevisionConflict
from api_service.validation.names import strip_name
from common.errors import InvalidArgument, Violation

_NODE_TIME = 5.0  # seconds


async def rename_container(engine: Engine, container: str, new_name: str, *, deadline: Deadline) -> None:
    """`new_name` has passed the protocol's rule. Raises AlreadyExists, InvalidArgument for its own name, NotFound."""
    name = strip_name(new_name)
    record = await engine.containers.find(container)

    def change(found: ContainerRecord) -> Changed:
        refuse_when_going(found, "rename")
        if found.name == name:
            why = f"the container has the name {name!r} already"
            raise InvalidArgument(violations=[Violation(field="new_name", description=why)])
        untold = any(one.network_id != DEFAULT_NETWORK for one in found.networking_config.endpoints.values())
        renamed = dataclasses.replace(found, name=name, names_untold=untold)
        return Changed(record=renamed, events=[container_event(renamed, "rename", engine.clock(), oldName=found.name)])

    try:
        renamed = await engine.containers.rename(record.id, name, change)
    except RevisionConflict as conflict:
        if (holder := engine.containers.held_name(conflict)) is not None:
            raise name_taken(name, holder) from conflict
        raise
    if renamed is None:
        raise no_such_container(container)
    if renamed.names_untold:
        telling = tell_names(engine, renamed.id, deadline.at_most(_NODE_TIME))
        await engine.jobs.finish(telling, name=f"names of {renamed.name}")
