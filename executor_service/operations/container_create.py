"""Lay a container out: its record and its writable layer. Nothing is mounted and nothing runs."""

from __future__ import annotations

from contextlib import AsyncExitStack

from common.errors import FailedPrecondition, InvalidArgument, Violation
from executor_service.container import ContainerSpec
from executor_service.host_errors import host_errors
from executor_service.node import Node
from executor_service.operations.container_rules import violations
from executor_service.storage.threads import settle
from executor_service.tasks import bounded


async def container_create(node: Node, spec: ContainerSpec) -> None:
    """Idempotent. Raises InvalidArgument with every violation, NotFound when the image is not here, FailedPrecondition
    when the id is taken by another specification."""
    broken = violations(spec)
    if spec.runtime and spec.runtime not in node.runtimes:
        known = ", ".join(node.runtimes)
        broken.append(
            Violation(field="spec.runtime", description=f"{spec.runtime!a} is not on this node, only {known}")
        )
    if broken:
        raise InvalidArgument(violations=broken)
    async with node.locks.hold(spec.id):
        if _laid_out(node, spec):
            return
        with node.image_use.wanted(spec.image_id), host_errors(f"container {spec.id!r}"):
            async with AsyncExitStack() as undo:
                undo.push_async_callback(
                    bounded,
                    "writable layer",
                    lambda: node.seams.snapshots.remove(spec.id),
                    timeout=node.limits.undo_step,
                    container=spec.id,
                )
                await node.seams.snapshots.prepare(spec.id, spec.image_id)

                async def commit() -> None:
                    await node.records.insert(spec)
                    undo.pop_all()

                await settle(commit())


def _laid_out(node: Node, spec: ContainerSpec) -> bool:
    record = node.records.find(spec.id)
    if record is None:
        return False
    if record.spec == spec and not record.removing:
        return True
    why = (
        "it is being removed; wait until it is gone"
        if record.removing
        else record.error or "it exists with another specification; choose another id, or remove it first"
    )
    raise FailedPrecondition(
        f"container {spec.id!r}: {why}",
        resource_type="container",
        resource_name=spec.id,
        reason="CONTAINER_DIFFERS",
    )
