"""Run an exec, once, with its client at its streams."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from api_service.nodes.executor import ExecExited, ExecRuns, ExecSpec, JournalEntry, StreamInput, StreamOutput
from api_service.operations.container_security import container_security
from api_service.operations.engine import Engine
from api_service.operations.exec_create import require_exec
from api_service.operations.stream_input import ClientInput, Typed
from api_service.operations.terminal_resize import resize_exec
from api_service.records.config import ConsoleSize
from api_service.records.container import ContainerRecord
from api_service.records.event_shapes import container_event
from api_service.records.exec import ExecRecord
from api_service.validation.capabilities import CAPABILITIES
from api_service.validation.detach_keys import DEFAULT_DETACH_KEYS, KeyScanner, parse_detach_keys
from api_service.validation.environment import process_environment
from common.errors import FailedPrecondition, InvalidArgument, SlipwayError, Violation

_NOT_RUN = 126  # Docker's exit code for what could not be run for any other reason than that it is not there


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
    record = await _take(engine, found.id)
    keys = parse_detach_keys(record.config.detach_keys or DEFAULT_DETACH_KEYS) or b""

    async def resize(size: ConsoleSize) -> None:
        await resize_exec(engine, record.id, size)

    client = ClientInput(typed=typed, resize=resize, scanner=KeyScanner(keys) if record.config.tty else None)
    executor = engine.nodes.get(container.node).executor
    inputs = _nothing() if start.detach else client.to_process()
    began = False
    try:
        async with aclosing(executor.exec(exec_spec(record, container, start), inputs)) as answers:
            async for answer in answers:
                match answer:
                    case ExecRuns():
                        began = True
                        await _began(engine, record, container, answer.pid)
                        yield ExecBegan(id=record.id, pid=answer.pid)
                    case StreamOutput():
                        yield answer
                    case JournalEntry(event=ExecExited() as event):
                        await engine.nodes.get(container.node).settle(answer)
                        yield ExecEnded(exit_code=event.exit_code, error=event.error)
                        return
    except SlipwayError as error:
        await _failed(engine, record, error, began=began)
        raise
    except (asyncio.CancelledError, GeneratorExit):
        if not began:
            gone = "its client went away before it began"
            ended = engine.execs.finish(record.id, exit_code=None, error=gone, time=engine.clock())
            engine.jobs.background(ended, name=f"end exec {record.id[:12]}")
        raise
    if start.detach or client.detached.is_set():
        if not start.detach:
            await engine.events.add(container_event(container, "exec_detach", engine.clock(), execID=record.id))
        yield ExecEnded(exit_code=None, detached=True)
        return
    gone = "the container was removed"
    await engine.execs.finish(record.id, exit_code=None, error=gone, time=engine.clock())
    yield ExecEnded(exit_code=None, error=gone)


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


async def _take(engine: Engine, exec_id: str) -> ExecRecord:
    """It is started by this call and by no other. Raises FailedPrecondition."""

    def change(record: ExecRecord) -> ExecRecord:
        if record.started_at is not None:
            why = "is running already" if record.running else "has already run; create another one"
            raise FailedPrecondition(
                f"exec {record.id[:12]}: it {why}",
                resource_type="exec",
                resource_name=record.id,
                reason="EXEC_STARTED",
            )
        return dataclasses.replace(record, started_at=engine.clock())

    taken = await engine.execs.update(exec_id, change)
    if taken is None:
        return await engine.execs.find(exec_id)
    return taken


async def _began(engine: Engine, record: ExecRecord, container: ContainerRecord, pid: int) -> None:
    def change(found: ExecRecord) -> ExecRecord:
        return dataclasses.replace(found, pid=pid if found.finished_at is None else 0)

    action = f"exec_start: {' '.join(record.config.cmd)}"[:256]
    event = container_event(container, action, engine.clock(), execID=record.id)
    await engine.execs.update(record.id, change, [event])


async def _failed(engine: Engine, record: ExecRecord, error: SlipwayError, *, began: bool) -> None:
    """One that has begun goes on, and the journal tells of its end; the other one never ran."""
    if began:
        return
    code = error.metadata.get("exit_code", "")
    known = int(code) if code in ("126", "127") else _NOT_RUN
    await engine.execs.finish(record.id, exit_code=known, error=error.message, time=engine.clock())


async def _nothing() -> AsyncIterator[StreamInput]:
    return
    yield
