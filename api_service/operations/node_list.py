"""Nodes as they are shown: the record, and what containers take of it. From the records alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from api_service.operations.engine import Engine
from api_service.operations.label_filter import has_labels
from api_service.records.container import Phase
from api_service.records.node import Availability, NodeRecord, NodeState
from api_service.records.node_usage import NodeUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFilter:
    """Values of one field are alternatives, fields restrict each other; `names` are parts of names, `labels` all
    hold."""

    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    availabilities: frozenset[Availability] = frozenset()
    states: frozenset[NodeState] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownNode:
    """`containers` of every state, how many of them run, and what all of them have booked."""

    record: NodeRecord
    containers: int
    running: int
    usage: NodeUsage = field(default_factory=NodeUsage)


async def inspect_node(engine: Engine, name: str) -> ShownNode:
    """Raises NotFound."""
    return await shown_node(engine, await engine.node_records.find(name))


async def list_nodes(engine: Engine, wanted: NodeFilter) -> list[ShownNode]:
    """By name."""
    found = [node for node in await engine.node_records.all() if _matches(node, wanted)]
    usages = await engine.usages.all()
    return [await _shown(engine, node, usages.get(node.name, NodeUsage())) for node in found]


async def shown_node(engine: Engine, record: NodeRecord) -> ShownNode:
    return await _shown(engine, record, (await engine.usages.get(record.name)).record)


async def _shown(engine: Engine, node: NodeRecord, usage: NodeUsage) -> ShownNode:
    containers = await engine.containers.on_node(node.name)
    running = [each.state.running for each in containers if each.phase is not Phase.CREATING]
    return ShownNode(record=node, containers=len(running), running=sum(running), usage=usage)


def _matches(node: NodeRecord, wanted: NodeFilter) -> bool:
    return (
        (not wanted.names or any(part in node.name for part in wanted.names))
        and (not wanted.availabilities or node.availability in wanted.availabilities)
        and (not wanted.states or node.status.state in wanted.states)
        and has_labels(node.labels, wanted.labels)
    )
