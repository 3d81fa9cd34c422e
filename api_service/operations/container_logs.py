"""What a container wrote. Read from its node as the client takes it, never faster."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from api_service.executor_client.logs import LogLine, LogQuery
from api_service.operations.container_state import refuse_when_going, wrong_state
from api_service.operations.engine import Engine
from api_service.validation.log_options import NOWHERE


async def stream_logs(engine: Engine, container: str, query: LogQuery) -> AsyncGenerator[Sequence[LogLine]]:
    """Lines as they come, those that came together at once. `query` names no container yet.

    Raises NotFound, FailedPrecondition, Unavailable."""
    record = await engine.containers.find(container)
    refuse_when_going(record, "read the logs of")
    if record.host_config.log_config.type == NOWHERE:
        why = "its output is not kept, its log driver is 'none'; attach to it while it runs instead"
        raise wrong_state(record, why, reason="LOGS_NOT_KEPT")
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
    async with aclosing(engine.nodes.get(record.node).executor.containers.read_logs(asked)) as batches:
        async for lines in batches:
            yield lines
