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
from api_service.validation.nodes import validate_node_address
from common.errors import FailedPrecondition, InvalidArgument, SlipwayError

_CONTACT_TIME = 5.0  # seconds
_SEEN_TIME = 5.0  # seconds until this service deals with what it has written


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest:
    name: str
    address: str
    labels: Mapping[str, str]
    availability: Availability = Availability.ACTIVE


async def add_node(engine: Engine, request: NodeRequest, *, deadline: Deadline) -> ShownNode:
    """One that does not answer is taken in all the same. Raises InvalidArgument, AlreadyExists for the name, the
    address or the executor of another node, FailedPrecondition for an address that cannot be dialled."""
    if broken := validate_node_address(request.address, "address"):
        raise InvalidArgument(violations=broken)
    record = await _met(engine, _draft(engine, request), deadline)
    async with deadline.enforced(f"add node {record.name!r}"):
        await engine.node_records.add(record, [node_event(record, "create", engine.clock())])
        # Whoever asked may use it in the next call.
        await engine.nodes.until(record.name, present=True, patience=_SEEN_TIME)
    return await shown_node(engine, record)


def _draft(engine: Engine, request: NodeRequest) -> NodeRecord:
    now = engine.clock()
    return NodeRecord(
        name=request.name,
        created_at=now,
        address=request.address,
        status=NodeStatus(state=NodeState.UNREACHABLE, since=now, reason=NOT_YET),
        labels=dict(request.labels),
        availability=request.availability,
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
