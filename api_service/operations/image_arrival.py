"""An image that a node has just taken in, and that somebody may have removed again before its record was written."""

from __future__ import annotations

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from common.errors import Aborted, NotFound

_CALL_TIME = 60.0  # seconds


async def refuse_when_gone(node: Node, image_id: str) -> None:
    """To be called with `image_changes` held, just before the record is written. Raises Aborted (`IMAGE_REMOVED`)."""
    try:
        # Not the client's deadline: the image is there, so it is to be recorded.
        await node.executor.images.get(image_id, deadline=Deadline.after(_CALL_TIME))
    except NotFound as error:
        raise Aborted(
            f"image {image_id}: somebody removed it while it was being taken in; repeat the request",
            reason="IMAGE_REMOVED",
        ) from error
