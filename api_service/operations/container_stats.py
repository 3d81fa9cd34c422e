"""What containers use, once a second.

One that does not run has nothing to tell: it appears when it starts and is silent after its end. A client that reads
slowly gets fewer samples; none is kept for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from api_service.deadline import Deadline
from api_service.executor_client.stats import ContainerStats
from api_service.nodes.registry import Node
from api_service.operations.container_state import refuse_when_going, require_running
from api_service.operations.engine import Engine
from common.errors import DeadlineExceeded, Unavailable

_INTERVAL = 1.0  # seconds
_READ_TIME = 10.0  # seconds a node may take
_SKIP_TIME = 1.0  # seconds until one of several nodes is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`cpu_percent` of one processor, since the sample before. `memory_limit`: the node's memory when it has none."""

    stats: ContainerStats
    name: str
    online_cpus: int
    cpu_percent: float
    memory_limit: int


async def stream_stats(engine: Engine, containers: Sequence[str], *, once: bool) -> AsyncGenerator[Sequence[Sample]]:
    """What was measured together, never nothing; without `containers` of all that run. Ends when all that were named
    are removed.

    Raises NotFound, FailedPrecondition for a named one that does not run when it is asked for once, Unavailable.
    """
    named = await _named(engine, containers, once=once)
    before: dict[str, ContainerStats] = {}
    due = time.monotonic()
    while True:
        names = await engine.containers.names()
        if containers and not any(container_id in names for ids in named.values() for container_id in ids):
            return
        found: dict[str, ContainerStats] = {}
        reading = [
            _read_or_skip(engine, node, named.get(node.name, ()), names, before)
            for node in engine.nodes.all()
            if not containers or node.name in named
        ]
        for samples in await asyncio.gather(*reading):
            if samples:
                found |= {sample.stats.container_id: sample.stats for sample in samples}
                yield samples
        if once:
            return
        before = found
        due = max(due + _INTERVAL, time.monotonic())
        await asyncio.sleep(due - time.monotonic())


async def _named(engine: Engine, containers: Sequence[str], *, once: bool) -> Mapping[str, Sequence[str]]:
    """Their ids, by node."""
    found: dict[str, list[str]] = {}
    for container in containers:
        record = await engine.containers.find(container)
        refuse_when_going(record, "read the statistics of")
        if once:
            require_running(record, "measure")
        found.setdefault(record.node, []).append(record.id)
    return found


async def _read_or_skip(
    engine: Engine, node: Node, ids: Sequence[str], names: Mapping[str, str], before: Mapping[str, ContainerStats]
) -> list[Sample]:
    """Among several nodes one that does not answer has nothing to tell, unless its containers were asked for."""
    if ids or engine.nodes.sole() is not None:
        return await _read(node, ids, names, before, Deadline.after(_READ_TIME))
    try:
        return await _read(node, ids, names, before, Deadline.after(_SKIP_TIME))
    except (Unavailable, DeadlineExceeded):
        return []


async def _read(
    node: Node,
    ids: Sequence[str],
    names: Mapping[str, str],
    before: Mapping[str, ContainerStats],
    deadline: Deadline,
) -> list[Sample]:
    facts = await node.facts(deadline)
    return [
        Sample(
            stats=stats,
            name=names[stats.container_id],
            online_cpus=facts.cpus,
            cpu_percent=cpu_percent(before.get(stats.container_id), stats),
            memory_limit=min(stats.memory_limit or facts.memory, facts.memory),
        )
        for stats in await node.executor.containers.read_stats(ids, deadline=deadline)
        if stats.container_id in names
    ]


def cpu_percent(before: ContainerStats | None, now: ContainerStats) -> float:
    """0 without a sample before, and when the container was started again in between."""
    if before is None or now.time <= before.time:
        return 0.0
    return max(now.cpu_usage - before.cpu_usage, 0) / (now.time - before.time) * 100
