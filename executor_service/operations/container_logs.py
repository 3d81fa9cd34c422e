"""Read a container's output."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from common.errors import InvalidArgument, Violation
from executor_service.logs.reader import LogQuery, read_log
from executor_service.logs.record import LogRecord
from executor_service.node import Node
from executor_service.operations.container_rules import id_violations


async def container_logs(node: Node, *, container_id: str, query: LogQuery) -> AsyncIterator[list[LogRecord]]:
    """Lines in the order they were written, those read together at once. With `follow` until the container's process
    ends; one that does not run has nothing to follow. Raises NotFound and InvalidArgument before the first line."""
    broken = id_violations(container_id)
    if not query.streams:
        broken.append(Violation(field="stdout", description="choose at least one of stdout and stderr"))
    if query.tail is not None and query.tail < 0:
        broken.append(
            Violation(field="tail", description=f"{query.tail} must be 0 or more lines; leave it out for all")
        )
    if broken:
        raise InvalidArgument(violations=broken)
    node.records.get(container_id)
    watch = node.supervisor.watched(container_id)
    ended = asyncio.Event()

    def end(_: object) -> None:
        ended.set()

    if watch is None:
        query = replace(query, follow=False)
    else:
        watch.ended.add_done_callback(end)
    try:
        async for records in read_log(node.paths.log(container_id), query, watcher=node.log_watcher, ended=ended):
            yield records
    finally:
        if watch is not None:
            watch.ended.remove_done_callback(end)
