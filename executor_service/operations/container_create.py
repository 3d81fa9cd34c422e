"""Lay a container out: its record and its writable layer. Nothing is mounted and nothing runs."""

from __future__ import annotations

from contextlib import AsyncExitStack

from common.errors import FailedPrecondition, InvalidArgument, NotFound, Violation
from executor_service.container import ContainerSpec
from executor_service.host_errors import host_errors
from executor_service.node import Node
from executor_service.operations.container_rules import violations
from executor_service.operations.requested_devices import with_requested_devices
from executor_service.operations.resource_rules import host_violations
from executor_service.operations.volume_fill import fill_volumes
from executor_service.resource_use import images_of, networks_of, volumes_of
from executor_service.tasks import bounded
from executor_service.threads import to_the_end


async def container_create(node: Node, spec: ContainerSpec) -> None:
    """Idempotent. Raises InvalidArgument with every violation, NotFound when the image is not here, FailedPrecondition
    when the id is taken by another specification."""
    broken = [
        *violations(spec),
        *host_violations(spec.resources, node.cgroup_features, field="spec.resources"),
    ]
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
        _check_users(node, spec)
        edited = await with_requested_devices(node, spec)
        if refused := await node.seams.bundles.refusals(edited):
            raise InvalidArgument(violations=refused)
        with (
            node.image_use.wanted(images_of(spec)),
            node.volume_use.wanted(volumes_of(spec)),
            node.network_use.wanted(networks_of(spec)),
            host_errors(f"container {spec.id!r}"),
        ):
            await _check_sources(node, edited)
            async with AsyncExitStack() as undo:
                undo.push_async_callback(
                    bounded,
                    "writable layer",
                    lambda: node.seams.snapshots.remove(spec.id),
                    timeout=node.limits.undo_step,
                    container=spec.id,
                )
                await node.seams.snapshots.prepare(spec.id, spec.image_id)
                await fill_volumes(node, spec)

                async def commit() -> None:
                    await node.records.insert(spec)
                    undo.pop_all()

                await to_the_end(commit())


async def _check_sources(node: Node, spec: ContainerSpec) -> None:
    """What it mounts, and the networks it joins, are here."""
    for network_id in networks_of(spec):
        if node.seams.networks.find(network_id) is None:
            why = f"network {network_id!r} is not on this node"
            raise NotFound(why, resource_type="network", resource_name=network_id)
    if not spec.mounts:
        return
    await node.seams.mounts.check(spec.mounts)
    for image_id in images_of(spec) - {spec.image_id}:
        await node.seams.images.get(image_id)
    for name in volumes_of(spec):
        if not node.seams.volumes.exists(name):
            raise NotFound(f"volume {name!r} is not on this node", resource_type="volume", resource_name=name)


def _check_users(node: Node, spec: ContainerSpec) -> None:
    """Nobody gets the node's own users by mistake."""
    if spec.remapped if node.user_mapping is None else not (spec.remapped or spec.node_users):
        raise FailedPrecondition(
            f"container {spec.id!r}: the node's userns_remap was changed meanwhile; repeat the request",
            resource_type="container",
            resource_name=spec.id,
            reason="USERS_CHANGED",
        )


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
