"""What running containers use, and their processes."""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import InvalidArgument
from executor_service.container_cgroups import Running
from executor_service.node import Node
from executor_service.operations.container_rules import id_violations
from executor_service.operations.running import running
from executor_service.stats import ContainerStats, ProcessInfo


async def container_stats(node: Node, container_ids: Sequence[str]) -> list[ContainerStats]:
    """Those that run, ordered by id; without ids all of them. An id that nothing runs under is left out."""
    found: list[Running] = []
    for container_id in sorted(set(container_ids) or node.supervisor.running()):
        watch, record = node.supervisor.watched(container_id), node.records.find(container_id)
        if watch is not None and record is not None and record.spec is not None:
            found.append(Running(spec=record.spec, pid=watch.run.process.container.pid))
    return await node.seams.cgroups.read_stats(found)


async def container_processes(node: Node, container_id: str) -> list[ProcessInfo]:
    """Raises NotFound, FailedPrecondition when it does not run."""
    if broken := id_violations(container_id):
        raise InvalidArgument(violations=broken)
    _, spec, _ = running(node, container_id)
    return await node.seams.cgroups.processes(spec)
