"""What a container changed of its image's files."""

from __future__ import annotations

from collections.abc import Sequence

from executor_service.files.changes import Change, changes
from executor_service.files.refusals import path_errors
from executor_service.node import Node
from executor_service.operations.file_root import usable


async def file_changes(node: Node, container_id: str) -> Sequence[Change]:
    """In the order of their paths. Raises NotFound, FailedPrecondition, ResourceExhausted for too many."""
    record, spec = usable(node, container_id)
    points = [mount.target for mount in spec.mounts]

    def work() -> Sequence[Change]:
        layers = node.seams.snapshots.layers(record.id)
        return changes(layers.upper, layers.lower, mount_points=points)

    with path_errors(container_id, "/"):
        return await node.copies.finish(lambda _: work())
