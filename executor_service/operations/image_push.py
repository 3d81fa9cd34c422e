"""Give an image to a registry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from common.errors import InvalidArgument, Violation
from executor_service.host_errors import host_errors
from executor_service.node import Node
from executor_service.operations.image_pull import endpoint_violations
from executor_service.registry.source import Endpoint, Patience
from executor_service.storage.image_config import DIGEST
from executor_service.storage.layer_progress import Report

# https://github.com/opencontainers/distribution-spec/blob/main/spec.md
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePush:
    """Of the image with the id `image_id`, which the repository is to have as `tag`."""

    endpoint: Endpoint
    image_id: str
    tag: str


def check_push(push: ImagePush) -> None:
    """Raises InvalidArgument."""
    if broken := list(_violations(push)):
        raise InvalidArgument(violations=broken)


async def image_push(node: Node, push: ImagePush, report: Report, patience: Patience) -> str:
    """The digest of the manifest. Idempotent. Raises what the registry and the image store raise."""
    with host_errors("image"):
        async with node.seams.targets(push.endpoint, patience) as target:
            return await node.seams.images.push(target, push.image_id, push.tag, report=report)


def _violations(push: ImagePush) -> Iterator[Violation]:
    yield from endpoint_violations(push.endpoint, "endpoint")
    if not DIGEST.fullmatch(push.image_id):
        yield Violation(field="image_id", description="must be sha256:<64 hex>")
    if not _TAG.fullmatch(push.tag):
        yield Violation(field="tag", description="must be a tag: letters, digits, '_', '.', '-', at most 128")
