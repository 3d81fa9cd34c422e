"""Versions, counts, nodes and disk usage. A node that does not answer is said to, and holds up nobody for long."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Sequence
from dataclasses import dataclass

from api_service.deadline import Deadline
from api_service.executor_client.node import DiskUsage, NodeFacts
from api_service.nodes.registry import Node
from api_service.operations.engine import Engine
from api_service.operations.node_answers import ask_nodes
from api_service.records.container import Status
from common.errors import SlipwayError
from common.version import VERSION

API_VERSION = "slipway.v1"
_NODE_TIME = 2.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """`facts` is None when the node does not answer; `error` then says why."""

    name: str
    facts: NodeFacts | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    version: str
    api_version: str
    python_version: str
    nodes: Sequence[NodeState]


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    containers: int
    running: int
    paused: int
    stopped: int
    images: int
    nodes: Sequence[NodeState]


async def system_version(engine: Engine, *, deadline: Deadline) -> Versions:
    return Versions(
        version=VERSION,
        api_version=API_VERSION,
        python_version=platform.python_version(),
        nodes=await _nodes(engine, deadline),
    )


async def system_info(engine: Engine, *, deadline: Deadline) -> Info:
    statuses = [record.status for record in await engine.containers.all()]
    running, paused = statuses.count(Status.RUNNING), statuses.count(Status.PAUSED)
    return Info(
        containers=len(statuses),
        running=running,
        paused=paused,
        stopped=len(statuses) - running - paused,
        images=sum(not image.condemned for image in await engine.images.all()),
        nodes=await _nodes(engine, deadline),
    )


async def system_disk_usage(engine: Engine, *, deadline: Deadline) -> tuple[DiskUsage, Sequence[str]]:
    """Of all nodes together, and a sentence for each that did not answer. Raises Unavailable when none does."""
    answered = await ask_nodes(engine, lambda node, limit: node.executor.disk_usage(deadline=limit), deadline)
    usages = list(answered.answers.values())
    total = DiskUsage(
        images_size=sum(usage.images_size for usage in usages),
        containers_size=sum(usage.containers_size for usage in usages),
        logs_size=sum(usage.logs_size for usage in usages),
        volumes_size=sum(usage.volumes_size for usage in usages),
    )
    return total, answered.warnings


async def _nodes(engine: Engine, deadline: Deadline) -> Sequence[NodeState]:
    limit = deadline.at_most(_NODE_TIME)
    return await asyncio.gather(*(_node(node, limit) for node in engine.nodes.all()))


async def _node(node: Node, deadline: Deadline) -> NodeState:
    try:
        return NodeState(name=node.name, facts=await node.executor.facts(deadline=deadline))
    except SlipwayError as error:
        return NodeState(name=node.name, facts=None, error=error.message)
