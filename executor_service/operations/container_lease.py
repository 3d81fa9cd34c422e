"""What the node's lease means for a container, and its renewal."""

from __future__ import annotations

from executor_service.node import Node


async def lease_ready(node: Node, container_id: str) -> None:
    """Before its restart policy starts it: one that may run elsewhere by now waits until the lease is renewed."""
    record = node.records.find(container_id)
    if record is not None and record.spec is not None and record.spec.leased:
        await node.lease.until_in_force()
