"""Remove a container and everything of it. Forward only: it is on record first, so that whatever interrupts it, the
next call or the next executor goes on with it."""

from __future__ import annotations

from common.errors import InvalidArgument
from executor_service.host_errors import host_errors
from executor_service.node import Node
from executor_service.operations.container_rules import id_violations
from executor_service.operations.container_stop import kill


async def container_remove(node: Node, container_id: str) -> None:
    """Idempotent; nothing there: nothing happens. Raises Internal when the process or a mount cannot be got rid of."""
    if broken := id_violations(container_id):
        raise InvalidArgument(violations=broken)
    async with node.locks.hold(container_id):
        await remove_locked(node, container_id)


async def remove_locked(node: Node, container_id: str) -> None:
    """The same, under the container's lock."""
    record = node.records.find(container_id)
    if record is None:
        return
    if not record.removing:
        await node.records.update(container_id, removing=True)
    node.restarts.cancel(container_id)
    node.attachments.give_up(container_id, None)
    if (watch := node.supervisor.watched(container_id)) is not None:
        await kill(node, container_id, watch)
    if record.spec is None or record.starting:
        # Nobody knows what a broken record's container left behind.
        node.cleanup.expect(container_id, runtime=record.spec.runtime if record.spec else "")
    await node.cleanup.settle(container_id)
    with host_errors(f"container {container_id!r}"):
        await node.seams.snapshots.remove(container_id)
        await node.seams.bundles.remove_files(container_id)
        await node.seams.ports.forget(container_id)
        await node.seams.network.forget(container_id)
    await node.records.delete(container_id)
