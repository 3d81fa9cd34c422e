"""Change a container's limits and restart policy: in its cgroup when it runs, and on record for the starts to come."""

from __future__ import annotations

from dataclasses import replace

from common.errors import FailedPrecondition, InvalidArgument, SlipwayError
from executor_service.container import ContainerSpec
from executor_service.host_errors import host_errors
from executor_service.journal import JournalEntry, Updated
from executor_service.limits import Resources
from executor_service.node import Node
from executor_service.operations.container_rules import id_violations
from executor_service.operations.resource_rules import host_violations, resource_violations
from executor_service.records import ContainerRecord
from executor_service.restart import RestartPolicy
from executor_service.storage.threads import settle
from executor_service.tasks import bounded


async def container_update(
    node: Node, *, container_id: str, resources: Resources, restart_policy: RestartPolicy
) -> JournalEntry:
    """The `updated` entry. Raises NotFound, InvalidArgument with every violation, FailedPrecondition for what the
    kernel refuses; everything is as it was then. Repeating it is safe."""
    broken = [*id_violations(container_id), *resource_violations(resources, field="resources")]
    broken += host_violations(resources, node.cgroup_features, field="resources")
    if broken:
        raise InvalidArgument(violations=broken)
    async with node.locks.hold(container_id):
        record = node.records.get(container_id)
        spec = _changeable(record)
        changed = replace(spec, resources=resources, restart_policy=restart_policy)
        with host_errors(f"container {container_id!r}"):
            return await settle(_update(node, record, spec, changed))


async def _update(node: Node, record: ContainerRecord, old: ContainerSpec, new: ContainerSpec) -> JournalEntry:
    """The cgroup first: what it refuses must not be on record."""
    cgroups = node.seams.cgroups
    if record.phase.has_process:
        await _limit(node, old, new)
    try:
        return await node.records.transition(new.id, Updated(), spec=new)
    except SlipwayError:
        if record.phase.has_process:
            await bounded("limits", lambda: cgroups.limit(old, old.resources), timeout=10, container=new.id)
        raise


async def _limit(node: Node, old: ContainerSpec, new: ContainerSpec) -> None:
    try:
        await node.seams.cgroups.limit(old, new.resources)
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
