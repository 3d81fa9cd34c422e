"""Change a container's limits, restart policy and published ports: in the kernel when it runs, and on record for the
starts to come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from common.errors import FailedPrecondition, InvalidArgument
from executor_service.container import ContainerSpec
from executor_service.container_record import ContainerRecord
from executor_service.host_errors import host_errors
from executor_service.journal_entries import JournalEntry, Updated
from executor_service.limits import Resources
from executor_service.network.publication import Publication
from executor_service.node import Node
from executor_service.operations.container_rules import id_violations, port_violations
from executor_service.operations.port_targets import lead_ports, passes_host, port_targets, sandbox_of
from executor_service.operations.resource_rules import host_violations, resource_violations
from executor_service.ports import PublishedPort
from executor_service.restart import RestartPolicy
from executor_service.tasks import bounded
from executor_service.threads import to_the_end


async def container_update(
    node: Node,
    *,
    container_id: str,
    resources: Resources,
    restart_policy: RestartPolicy,
    published_ports: tuple[PublishedPort, ...],
) -> JournalEntry:
    """The `updated` entry. Raises NotFound, InvalidArgument with every violation, FailedPrecondition for what the
    kernel refuses, AlreadyExists and ResourceExhausted for ports; everything is as it was then. Repeating it is
    safe."""
    if broken := id_violations(container_id):
        raise InvalidArgument(violations=broken)
    async with node.locks.hold(container_id):
        record = node.records.get(container_id)
        spec = _changeable(record)
        changed = replace(spec, resources=resources, restart_policy=restart_policy, published_ports=published_ports)
        broken = resource_violations(resources, field="resources")
        broken += [*host_violations(resources, node.cgroup_features, field="resources"), *port_violations(changed)]
        if broken:
            raise InvalidArgument(violations=broken)
        with host_errors(f"container {container_id!r}"):
            return await to_the_end(_update(node, record, spec, changed))


async def _update(node: Node, record: ContainerRecord, old: ContainerSpec, new: ContainerSpec) -> JournalEntry:
    """The kernel first: what it refuses must not be on record."""
    async with AsyncExitStack() as undo:
        if record.phase.has_process:
            undo.push_async_callback(_put_back, node, "limits", old.id, lambda: _limit(node, old, old.resources))
            await _limit(node, old, new.resources)
        ports = None
        if new.published_ports != old.published_ports:
            undo.push_async_callback(_put_back, node, "ports", old.id, lambda: node.seams.ports.revert(old.id))
            ports = await _publish(node, record, old, new)
        event = Updated(ports=ports.bound if ports is not None else None)
        entry = await node.records.transition(new.id, event, spec=new, ports=ports)
        undo.pop_all()
    return entry


async def _publish(node: Node, record: ContainerRecord, old: ContainerSpec, new: ContainerSpec) -> Publication:
    """One that does not run has its ports from its next start on."""
    sandbox = await sandbox_of(node, record)
    if sandbox is None or not passes_host(node, sandbox):
        return Publication()
    if set(new.published_ports) <= set(old.published_ports):
        return await lead_ports(node, new, sandbox)
    # What is asked for now is to be had now: without a way out it is refused, which a start only leaves out.
    return await node.seams.ports.publish(new.id, new.published_ports, targets=port_targets(node, new, sandbox))


async def _put_back(node: Node, name: str, container_id: str, step: Callable[[], Awaitable[object]]) -> None:
    await bounded(name, step, timeout=node.limits.undo_step, container=container_id)


async def _limit(node: Node, spec: ContainerSpec, resources: Resources) -> None:
    try:
        await node.seams.cgroups.limit(spec, resources)
    except FailedPrecondition as error:
        # It has just ended: its next start has the new limits.
        if error.reason != "NOT_RUNNING":
            raise


def _changeable(record: ContainerRecord) -> ContainerSpec:
    if record.spec is not None and not record.removing:
        return record.spec
    why = "it is being removed" if record.removing else record.error
    raise FailedPrecondition(
        f"container {record.id!r}: {why}", resource_type="container", resource_name=record.id, reason="CANNOT_UPDATE"
    )
