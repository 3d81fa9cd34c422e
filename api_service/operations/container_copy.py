"""Copy files into a container and out of it, running or not. The archive passes through, no faster than it is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from api_service.deadline import Deadline
from api_service.executor_client.files import ArchiveTarget, PathStat
from api_service.operations.container_state import refuse_when_going
from api_service.operations.engine import Engine
from api_service.records.event_shapes import container_event


async def copy_to_container(
    engine: Engine, container: str, target: ArchiveTarget, chunks: AsyncIterator[bytes], *, deadline: Deadline
) -> None:
    """`target` names no container yet. Raises NotFound for the container and the path, InvalidArgument
    (`CORRUPT_ARCHIVE`), FailedPrecondition, ResourceExhausted, Unavailable."""
    record = await engine.containers.find(container)
    refuse_when_going(record, "copy into")
    named = dataclasses.replace(target, container_id=record.id)
    await engine.nodes.get(record.node).executor.files.put_archive(named, chunks, deadline=deadline)
    await engine.events.add(container_event(record, "extract-to-dir", engine.clock(), path=target.path))


async def copy_from_container(
    engine: Engine, container: str, path: str, *, deadline: Deadline
) -> AsyncGenerator[PathStat | bytes]:
    """First what the path is, then the archive. Raises NotFound for the container and the path, FailedPrecondition,
    Unavailable."""
    record = await engine.containers.find(container)
    refuse_when_going(record, "copy from")
    executor = engine.nodes.get(record.node).executor
    async with aclosing(executor.files.get_archive(record.id, path, deadline=deadline)) as pieces:
        async for piece in pieces:
            if isinstance(piece, PathStat):
                await engine.events.add(container_event(record, "archive-path", engine.clock(), path=path))
            yield piece
