"""What a container wrote. Read from its node as the client takes it, never faster."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from api_service.nodes.executor import LogLine, LogQuery
from api_service.operations.container_state import refuse_when_going
from api_service.operations.engine import Engine


async def stream_logs(engine: Engine, container: str, query: LogQuery) -> AsyncGenerator[LogLine]:
    """`query` names no container yet. Raises NotFound, FailedPrecondition, Unavailable."""
    record = await engine.containers.find(container)
    refuse_when_going(record, "read the logs of")
    follow = query.follow and record.state.running
    asked = LogQuery(
        container_id=record.id,
        stdout=query.stdout,
        stderr=query.stderr,
        follow=follow,
        since=query.since,
        until=query.until,
        tail=query.tail,
    )
    async with aclosing(engine.nodes.get(record.node).executor.read_logs(asked)) as lines:
        async for line in lines:
            yield line
