"""The one start of an exec, up to what the node first says of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator

from api_service.executor_client.streams import ExecAnswer, ExecRuns
from api_service.operations.engine import Engine
from api_service.operations.exec_settle import settle_execs
from api_service.records.container import ContainerRecord
from api_service.records.event_shapes import container_event
from api_service.records.exec import ExecRecord
from common.errors import DeadlineExceeded, FailedPrecondition, SlipwayError, Unavailable

_TIME = 60.0  # seconds for the node, which gives up sooner
_NOT_RUN = 126  # Docker's exit code for what could not be run for any other reason than that it is not there


async def begin_exec(
    engine: Engine, record: ExecRecord, container: ContainerRecord, answers: AsyncGenerator[ExecAnswer]
) -> int:
    """Its pid on the node. Raises FailedPrecondition for a second start, and what the node says.

    What the node refuses has ended. When its answer is lost the program may run: it is said to run until the node can
    be asked, and can be started again if it never did.
    """
    if record.id in engine.starting_execs:
        raise _started(record, "is being started")
    engine.starting_execs.add(record.id)
    try:
        await _take(engine, record, container)
        pid = await _first(engine, record, answers)
    except (Unavailable, DeadlineExceeded):
        engine.jobs.background(_give_up(engine, record, container), name=f"settle exec {record.id[:12]}")
        raise
    finally:
        engine.starting_execs.discard(record.id)
    await engine.execs.update(record.id, lambda found: dataclasses.replace(found, pid=pid) if found.running else None)
    return pid


async def _take(engine: Engine, record: ExecRecord, container: ContainerRecord) -> None:
    """It is started by this call and by no other. Raises FailedPrecondition, NotFound."""

    def change(found: ExecRecord) -> ExecRecord:
        if found.started_at is not None:
            raise _started(found, "is running already" if found.running else "has already run; create another one")
        return dataclasses.replace(found, started_at=engine.clock(), starter=engine.claims.replica)

    # Told before the node knows of it, as Docker does: its end cannot be told first.
    action = f"exec_start: {' '.join(record.config.cmd)}"[:256]
    event = container_event(container, action, engine.clock(), execID=record.id)
    if await engine.execs.update(record.id, change, [event]) is None:
        await engine.execs.find(record.id)


async def _give_up(engine: Engine, record: ExecRecord, container: ContainerRecord) -> None:
    """Nobody waits for the node's answer any more, which its next follower has to know, whichever replica that is."""

    def change(found: ExecRecord) -> ExecRecord | None:
        ours = found.starter == engine.claims.replica and record.id not in engine.starting_execs
        return dataclasses.replace(found, starter="") if found.running and ours else None

    await engine.execs.update(record.id, change)
    await settle_execs(engine, engine.nodes.get(container.node))


async def _first(engine: Engine, record: ExecRecord, answers: AsyncGenerator[ExecAnswer]) -> int:
    try:
        async with asyncio.timeout(_TIME):
            answer = await anext(answers, None)
    except TimeoutError as error:
        raise DeadlineExceeded(f"exec {record.id[:12]}: the node did not start it in {_TIME:g} s") from error
    except (Unavailable, DeadlineExceeded):
        raise
    except SlipwayError as error:
        code = error.metadata.get("exit_code", "")
        known = int(code) if code in ("126", "127") else _NOT_RUN
        await engine.execs.finish(
            record.id, container_id=record.container_id, exit_code=known, error=error.message, time=engine.clock()
        )
        raise
    if not isinstance(answer, ExecRuns):
        raise Unavailable(f"exec {record.id[:12]}: the node ended the call without an answer", retry_after=1.0)
    return answer.pid


def _started(record: ExecRecord, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"exec {record.id[:12]}: it {why}", resource_type="exec", resource_name=record.id, reason="EXEC_STARTED"
    )
