"""Make an image of what a container is now: its image's layers, and its own changes as one more."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

from executor_service.container import ContainerSpec
from executor_service.container_record import Phase
from executor_service.files.layer_pack import LayerPacker
from executor_service.files.refusals import path_errors
from executor_service.files.threads import Sink
from executor_service.host_errors import host_errors
from executor_service.node import Node
from executor_service.operations.file_root import usable
from executor_service.storage.image_config import Step
from executor_service.storage.images import Image
from executor_service.tasks import bounded

_THAW = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """`config` is what containers of the new image inherit; `pause`: nothing in the container runs meanwhile."""

    container_id: str
    config: Mapping[str, object]
    author: str
    comment: str
    pause: bool


async def container_commit(node: Node, commit: Commit) -> Image:
    """Raises NotFound, FailedPrecondition, InvalidArgument, ResourceExhausted, DeadlineExceeded when a process cannot
    be frozen."""
    _, spec = usable(node, commit.container_id)
    step = Step(created_by=" ".join(spec.args), author=commit.author, comment=commit.comment)
    with host_errors("image"):
        async with aclosing(_layer(node, spec, pause=commit.pause)) as archive:
            return await node.seams.images.commit(spec.image_id, archive, config=commit.config, step=step)


async def _layer(node: Node, spec: ContainerSpec, *, pause: bool) -> AsyncGenerator[bytes]:
    async with AsyncExitStack() as stack:
        stack.enter_context(path_errors(spec.id, "/"))
        if pause:
            await stack.enter_async_context(_still(node, spec))

        def pack(sink: Sink) -> None:
            upper = os.open(node.seams.snapshots.layers(spec.id).upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                LayerPacker(sink).pack(upper, b"")
            finally:
                os.close(upper)

        async with aclosing(node.copies.stream(pack)) as chunks:
            async for chunk in chunks:
                yield chunk


@asynccontextmanager
async def _still(node: Node, spec: ContainerSpec) -> AsyncIterator[None]:
    """That it is frozen is not on record: an executor after a crash lets it go on."""
    async with node.locks.hold(spec.id):
        if node.records.get(spec.id).phase is not Phase.RUNNING:
            yield
            return
        try:
            await node.seams.cgroups.freeze(spec)
            yield
        finally:
            await bounded("freezer", lambda: node.seams.cgroups.thaw(spec), timeout=_THAW, container=spec.id)
