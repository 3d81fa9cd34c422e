"""Files of a container as tar archives: one path, or the whole root without its mounts."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from functools import partial

from executor_service.files.owners import Owners
from executor_service.files.pack import TreePacker
from executor_service.files.refusals import path_errors
from executor_service.files.resolve import Found, PathStat, found
from executor_service.files.threads import Sink
from executor_service.node import Node
from executor_service.operations.file_root import check_path, container_root, layered_root, refuse_below_mount, usable
from executor_service.threads import finish


async def file_get(node: Node, *, container_id: str, path: str) -> AsyncGenerator[PathStat | bytes]:
    """First what the path is, then the archive. Raises NotFound for the path, InvalidArgument, FailedPrecondition."""
    check_path(path)
    record, spec = usable(node, container_id)
    refuse_below_mount(record, spec, path)
    async with AsyncExitStack() as stack:
        stack.enter_context(path_errors(container_id, path))
        root = await stack.enter_async_context(container_root(node, record))
        opened = found(root.descriptor, path)
        thing = await finish(opened.__enter__)
        stack.callback(opened.__exit__, None, None, None)
        yield thing.stat
        async with aclosing(node.copies.stream(partial(_pack, thing, Owners(root.mapping)))) as chunks:
            async for chunk in chunks:
                yield chunk


async def file_export(node: Node, container_id: str) -> AsyncGenerator[bytes]:
    """The root as its layers make it. Raises NotFound, FailedPrecondition."""
    record, _ = usable(node, container_id)
    async with AsyncExitStack() as stack:
        stack.enter_context(path_errors(container_id, "/"))
        merged, mapping = await stack.enter_async_context(layered_root(node, record))

        def pack(sink: Sink) -> None:
            root = os.open(merged, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                TreePacker(sink, owners=Owners(mapping)).pack(root, b"")
            finally:
                os.close(root)

        async with aclosing(node.copies.stream(pack)) as chunks:
            async for chunk in chunks:
                yield chunk


def _pack(thing: Found, owners: Owners, sink: Sink) -> None:
    TreePacker(sink, owners=owners).pack(thing.descriptor, thing.member)
