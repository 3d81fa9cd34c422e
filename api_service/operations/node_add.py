"""Take a node in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from api_service.deadline import Deadline
from api_service.nodes.contact import NOT_YET, description
from api_service.operations.engine import Engine
from api_service.operations.node_list import ShownNode, shown_node
from api_service.records.event_shapes import node_event
from api_service.records.node import Availability, NodeRecord, NodeState, NodeStatus
from api_service.validation.nodes import validate_node_address, validate_node_labels
from common.errors import FailedPrecondition, InvalidArgument, SlipwayError

_CONTACT_TIME = 5.0  # seconds
_SEEN_TIME = 5.0  # seconds until this service deals with what it has written


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest:
    """`availability`: None is active, or what a node that settings were about has."""

    name: str
    address: str
    labels: Mapping[str, str]
    availability: Availability | None = None


async def add_node(engine: Engine, request: NodeRequest, *, deadline: Deadline) -> ShownNode:
    """One that does not answer is taken in all the same. That of settings which no service has any more becomes one
    that all of them deal with, with all that is on it, and the labels and the availability that the request does not
    give. Raises InvalidArgument, AlreadyExists for the name, the address or the executor of another node,
    FailedPrecondition for an address that cannot be dialled."""
    if broken := validate_node_address(request.address, "address"):
        raise InvalidArgument(violations=broken)
    record = await _met(engine, _draft(engine, request), deadline)
    async with deadline.enforced(f"add node {record.name!r}"):
        record = await _taken_over(engine, record, request.availability) or await _added(engine, record)
        # Whoever asked may use it in the next call.
        await engine.nodes.until(record.name, present=True, patience=_SEEN_TIME)
    return await shown_node(engine, record)


async def _added(engine: Engine, record: NodeRecord) -> NodeRecord:
    await engine.node_records.add(record, [node_event(record, "create", engine.clock())])
    return record


async def _taken_over(engine: Engine, wanted: NodeRecord, availability: Availability | None) -> NodeRecord | None:
    """None: there is none of that name which settings were about, or it was another executor that answered."""
    if engine.nodes.find(wanted.name) is not None:
        return None
    taken: NodeRecord | None = None

    def change(found: NodeRecord) -> NodeRecord:
        nonlocal taken
        is_it = found.configured and found.executor_id and found.executor_id == wanted.executor_id
        taken = _moved(found, wanted, availability) if is_it else None
        return taken or found

    await engine.node_records.update(wanted.name, change, lambda changed: node_event(changed, "update", engine.clock()))
    return taken


def _moved(found: NodeRecord, wanted: NodeRecord, availability: Availability | None) -> NodeRecord:
    """With the lease that it may still hold."""
    labels = {**found.labels, **wanted.labels}
    if broken := validate_node_labels(labels, "labels"):
        raise InvalidArgument(violations=broken)
    return dataclasses.replace(
        wanted,
        created_at=found.created_at,
        labels=labels,
        availability=availability or found.availability,
        promised_lease=found.promised_lease,
    )


def _draft(engine: Engine, request: NodeRequest) -> NodeRecord:
    now = engine.clock()
    return NodeRecord(
        name=request.name,
        created_at=now,
        address=request.address,
        status=NodeStatus(state=NodeState.UNREACHABLE, since=now, reason=NOT_YET),
        labels=dict(request.labels),
        availability=request.availability or Availability.ACTIVE,
        fresh=True,
    )


async def _met(engine: Engine, draft: NodeRecord, deadline: Deadline) -> NodeRecord:
    """With what it says of itself, when it answers: a second node with the same executor is refused at once."""
    try:
        async with engine.dial(draft) as executor:
            facts = await executor.facts(deadline=deadline.at_most(_CONTACT_TIME))
    except FailedPrecondition:
        raise  # this service cannot dial such an address at all
    except SlipwayError as error:
        return dataclasses.replace(draft, status=dataclasses.replace(draft.status, reason=error.message))
    return dataclasses.replace(draft, executor_id=facts.node_id, description=description(facts))
