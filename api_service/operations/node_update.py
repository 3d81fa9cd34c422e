"""Change a node's labels and whether it gets new containers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api_service.operations.engine import Engine
from api_service.operations.node_list import ShownNode, shown_node
from api_service.records.event import Event
from api_service.records.event_shapes import node_event
from api_service.records.node import Availability, NodeRecord
from api_service.records.node_repository import no_such_node
from api_service.validation.nodes import validate_node_labels
from common.errors import InvalidArgument, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChange:
    """`availability`: None leaves it as it is."""

    set_labels: Mapping[str, str]
    remove_labels: Sequence[str] = ()
    availability: Availability | None = None


async def update_node(engine: Engine, name: str, wanted: NodeChange) -> ShownNode:
    """Raises NotFound, InvalidArgument for a label that is set and removed at once."""
    if both := sorted(wanted.set_labels.keys() & set(wanted.remove_labels)):
        why = f"{both[0]!r} is set as well (set_labels); name it in one of them"
        raise InvalidArgument(violations=[Violation(field="remove_labels", description=why)])
    before: NodeRecord | None = None

    def change(found: NodeRecord) -> NodeRecord:
        nonlocal before
        before = found
        kept = {key: value for key, value in found.labels.items() if key not in wanted.remove_labels}
        labels = {**kept, **wanted.set_labels}
        if broken := validate_node_labels(labels, "set_labels"):
            raise InvalidArgument(violations=broken)
        return dataclasses.replace(found, labels=labels, availability=wanted.availability or found.availability)

    def event(changed: NodeRecord) -> Event:
        assert before is not None
        old, new = before.availability, changed.availability
        more = {"availability.old": old.value, "availability.new": new.value} if old is not new else {}
        return node_event(changed, "update", engine.clock(), **more)

    changed = await engine.node_records.update(name, change, event)
    if changed is None:
        raise no_such_node(name)
    if (node := engine.nodes.find(name)) is not None:
        node.record = changed  # the next placement here is to see it
    return await shown_node(engine, changed)
