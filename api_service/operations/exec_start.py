"""Run an exec, once, with its client at its streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from api_service.executor_client.journal import ExecExited, JournalEntry
from api_service.executor_client.streams import ExecAnswer, ExecSpec, StreamInput, StreamOutput
from api_service.operations.container_security import container_security
from api_service.operations.engine import Engine
from api_service.operations.exec_begin import begin_exec
from api_service.operations.exec_create import require_exec
from api_service.operations.stream_input import ClientInput, Typed, until
from api_service.records.config import ConsoleSize
from api_service.records.container import ContainerRecord
from api_service.records.event_shapes import container_event
from api_service.records.exec import ExecRecord
from api_service.validation.capabilities import CAPABILITIES
from api_service.validation.detach_keys import DEFAULT_DETACH_KEYS, KeyScanner, parse_detach_keys
from api_service.validation.environment import process_environment
from common.errors import InvalidArgument, SlipwayError, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecStart:
    exec: str
    detach: bool = False
    console_size: ConsoleSize | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecBegan:
    id: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecEnded:
    exit_code: int | None
    detached: bool = False
    error: str = ""


async def start_exec(
    engine: Engine, start: ExecStart, typed: AsyncIterator[Typed]
) -> AsyncGenerator[ExecBegan | StreamOutput | ExecEnded]:
    """Its begin, its output, its end. Raises InvalidArgument for what cannot be run (reason `COMMAND_NOT_FOUND` or
    `COMMAND_NOT_EXECUTABLE`), NotFound, FailedPrecondition for a second start and a container that does not run."""
    found = await engine.execs.find(start.exec)
    container = await engine.containers.find(found.container_id)
    require_exec(container)
    if start.console_size is not None and not found.config.tty:
        why = "needs `config.tty` of the exec: without a terminal there is none"
        raise InvalidArgument(violations=[Violation(field="start.console_size", description=why)])
    keys = parse_detach_keys(found.config.detach_keys or DEFAULT_DETACH_KEYS) or b""
    client = ClientInput(typed=typed, scanner=KeyScanner(keys) if found.config.tty else None)
    inputs = _nothing() if start.detach else client.to_process()
    answers = engine.nodes.get(container.node).executor.containers.exec(exec_spec(found, container, start), inputs)
    async with client.telling():
        began = await _begun(engine, found, container, answers)
        async with aclosing(answers), aclosing(until(answers, client.broken)) as wanted:
            yield began
            async for answer in wanted:
                if isinstance(answer, StreamOutput):
                    yield answer
                elif isinstance(answer, JournalEntry) and isinstance(event := answer.event, ExecExited):
                    await engine.nodes.get(container.node).settle(answer)
                    yield ExecEnded(exit_code=event.exit_code, error=event.error)
                    return
    client.refuse()
    if start.detach or client.detached.is_set():
        if not start.detach:
            await engine.events.add(container_event(container, "exec_detach", engine.clock(), execID=found.id))
        yield ExecEnded(exit_code=None, detached=True)
        return
    gone = "the container was removed"
    await engine.execs.finish(
        found.id, container_id=found.container_id, exit_code=None, error=gone, time=engine.clock()
    )
    yield ExecEnded(exit_code=None, error=gone)


async def _begun(
    engine: Engine, record: ExecRecord, container: ContainerRecord, answers: AsyncGenerator[ExecAnswer]
) -> ExecBegan:
    """The start up to the node's first answer. A caller who goes away meanwhile leaves without it: only the answer
    tells whether there is a program to be ended, whose end the journal will tell."""
    beginning = engine.jobs.start(begin_exec(engine, record, container, answers), name=f"exec {record.id[:12]}")
    try:
        return ExecBegan(id=record.id, pid=await asyncio.shield(beginning))
    except SlipwayError:
        await answers.aclose()
        raise
    except asyncio.CancelledError:
        engine.jobs.background(_abandon(beginning, answers), name=f"leave exec {record.id[:12]}")
        raise


async def _abandon(beginning: asyncio.Task[int], answers: AsyncGenerator[ExecAnswer]) -> None:
    await asyncio.wait({beginning})
    await answers.aclose()


def exec_spec(record: ExecRecord, container: ContainerRecord, start: ExecStart) -> ExecSpec:
    """The container's own where the exec says nothing."""
    config, own = record.config, container.config
    security = container_security(container.host_config)
    attached = not start.detach
    return ExecSpec(
        id=record.id,
        container_id=container.id,
        args=config.cmd,
        env=process_environment((*own.env, *config.env), hostname=own.hostname, tty=config.tty),
        working_dir=config.working_dir or own.working_dir or "/",
        user=config.user or own.user,
        group_add=container.host_config.group_add,
        capabilities=CAPABILITIES if config.privileged else security.capabilities,
        no_new_privileges=security.no_new_privileges,
        terminal=config.tty,
        terminal_size=start.console_size or config.console_size,
        stdin=config.attach_stdin and attached,
        stdout=config.attach_stdout and attached,
        stderr=config.attach_stderr and attached,
        detach=start.detach,
    )


async def _nothing() -> AsyncIterator[StreamInput]:
    return
    yield
