"""Delete an image from the node."""

from __future__ import annotations

from common.errors import InvalidArgument
from executor_service.host_errors import host_errors
from executor_service.node import Node
from executor_service.operations.container_rules import image_id_violations


async def image_remove(node: Node, image_id: str) -> None:
    """Idempotent. Raises FailedPrecondition while a container of the node uses the image."""
    if broken := image_id_violations(image_id):
        raise InvalidArgument(violations=broken)
    with node.image_use.removal(image_id), host_errors(f"image {image_id!r}"):
        await node.seams.images.remove(image_id)
