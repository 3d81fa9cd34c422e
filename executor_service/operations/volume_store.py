"""Make, delete and list the node's volumes."""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import InvalidArgument
from executor_service.host_errors import host_errors
from executor_service.node import Node
from executor_service.storage.volumes import CreatedVolume, option_violations


async def volume_create(node: Node, name: str, options: Mapping[str, str]) -> CreatedVolume:
    """Idempotent. Raises InvalidArgument, FailedPrecondition when it is there with other options."""
    if broken := option_violations(options, "options"):
        raise InvalidArgument(violations=broken)
    with host_errors(f"volume {name!r}"):
        return await node.seams.volumes.create(name, options)


async def volume_remove(node: Node, name: str) -> int:
    """Idempotent. Returns the bytes it held. Raises FailedPrecondition while a container of the node names it."""
    with node.volume_use.removal(name), host_errors(f"volume {name!r}"):
        return await node.seams.volumes.remove(name)
