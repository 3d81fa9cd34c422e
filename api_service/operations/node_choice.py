"""Which nodes get what: the nodes as they stand, and what placement makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.placement.place import Demand, place, unwilling
from api_service.placement.refusal import Lack, Refusal
from api_service.records.node import NodeRecord, NodeState
from api_service.records.node_repository import no_such_node


async def choose_node(engine: Engine, demand: Demand, *, subject: str, without: str = "") -> Node:
    """`without`: a node that it leaves. Raises FailedPrecondition and ResourceExhausted (`NO_NODE_FITS`)."""
    usages, counts = await engine.usages.all(), await _counts(engine)
    records = [node.record for node in engine.nodes.all()]
    if len(records) == 1:
        records = [_as_if_ready(records[0])]
    if without:
        records = [record for record in records if record.name != without]
    chosen = place(demand, records, usages, counts)
    if isinstance(chosen, Refusal):
        raise chosen.error(subject)
    return engine.nodes.get(chosen)


async def named_node(engine: Engine, name: str, *, subject: str) -> Node:
    """The one that a request names, or that placement chooses. Raises NotFound, and FailedPrecondition when none can
    take it (`NO_NODE_FITS`)."""
    if name:
        return _named(engine, name)
    if (sole := engine.nodes.sole()) is not None and not sole.record.removing:
        return sole
    return await choose_node(engine, Demand(), subject=subject)


def image_nodes(engine: Engine, name: str) -> Sequence[Node]:
    """The one that a request names, or all that get containers: an image is wherever a container may come. Raises as
    `named_node`."""
    if name:
        return [_named(engine, name)]
    if (sole := engine.nodes.sole()) is not None:
        return [sole]
    lacks: dict[str, Lack] = {}
    found: list[Node] = []
    for node in engine.nodes.all():
        if (lack := unwilling(node.record)) is None:
            found.append(node)
        else:
            lacks[node.name] = lack
    if not found:
        raise Refusal(lacks=lacks).error("the image")
    return found


def holder_of(engine: Engine, nodes: Sequence[str]) -> Node:
    """Of the nodes that have an image the first that is followed; one that is not says why it does not answer. Raises
    NotFound."""
    known = [node for name in nodes if (node := engine.nodes.find(name)) is not None]
    ready = [node for node in known if node.record.status.state is NodeState.READY]
    return next(iter([*ready, *known]), None) or engine.nodes.get(nodes[0])


def _named(engine: Engine, name: str) -> Node:
    node = engine.nodes.find(name)
    if node is None:
        raise no_such_node(name)
    return node


async def _counts(engine: Engine) -> Mapping[str, int]:
    return await engine.containers.counts() if engine.nodes.sole() is None else {}


def _as_if_ready(node: NodeRecord) -> NodeRecord:
    """Where there is one node only, whether it answers is found out by asking it, and its own words then say what to
    do."""
    return replace(node, status=replace(node.status, state=NodeState.READY))
