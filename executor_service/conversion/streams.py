"""Attach and exec."""

from __future__ import annotations

from collections.abc import AsyncIterator

from slipway.executor.v1 import runtime_service_pb2 as pb

from common.errors import InvalidArgument, Violation
from executor_service.container import TerminalSize
from executor_service.conversion.container_spec import size_from_proto
from executor_service.conversion.journal import entry_to_proto
from executor_service.journal_entries import JournalEntry
from executor_service.logs.record import Stream
from executor_service.operations.exec_rules import size_violations
from executor_service.streams.exec_spec import ExecSpec, StreamInput, StreamOutput

_STREAMS = {Stream.STDOUT: pb.LOG_STREAM_STDOUT, Stream.STDERR: pb.LOG_STREAM_STDERR}


async def attach_target(requests: AsyncIterator[pb.AttachContainerRequest]) -> pb.AttachTarget:
    """Raises InvalidArgument unless the first message says it."""
    async for request in requests:
        if request.HasField("attach"):
            return request.attach
        break
    raise _no_target("attach")


async def attach_inputs(requests: AsyncIterator[pb.AttachContainerRequest]) -> AsyncIterator[StreamInput]:
    async for request in requests:
        yield StreamInput(data=request.stdin, end=request.close_stdin, resize=_size(request))


def attach_answer(output: StreamOutput | None) -> pb.AttachContainerResponse:
    if output is None:
        return pb.AttachContainerResponse()
    return pb.AttachContainerResponse(stream=_STREAMS[output.stream], data=output.data)


async def exec_spec(requests: AsyncIterator[pb.ExecRequest]) -> ExecSpec:
    """Raises InvalidArgument unless the first message says it."""
    async for request in requests:
        if request.HasField("exec"):
            return _exec_spec(request.exec)
        break
    raise _no_target("exec")


def _exec_spec(message: pb.ExecSpec) -> ExecSpec:
    return ExecSpec(
        id=message.id,
        container_id=message.container_id,
        args=tuple(message.args),
        env=tuple(message.env),
        working_dir=message.working_dir,
        user=message.user,
        group_add=tuple(message.group_add),
        capabilities=tuple(message.capabilities),
        no_new_privileges=message.no_new_privileges,
        terminal=message.terminal,
        terminal_size=size_from_proto(message.terminal_size) if message.HasField("terminal_size") else None,
        stdin=message.stdin,
        stdout=message.stdout,
        stderr=message.stderr,
        detach=message.detach,
    )


async def exec_inputs(requests: AsyncIterator[pb.ExecRequest]) -> AsyncIterator[StreamInput]:
    async for request in requests:
        yield StreamInput(data=request.stdin, end=request.close_stdin, resize=_size(request), detach=request.detach)


def _size(request: pb.AttachContainerRequest | pb.ExecRequest) -> TerminalSize | None:
    """Raises InvalidArgument for one that no terminal can have."""
    if not request.HasField("resize"):
        return None
    size = size_from_proto(request.resize)
    if broken := size_violations(size, field="resize"):
        raise InvalidArgument(violations=broken)
    return size


def exec_answer(answer: int | StreamOutput | JournalEntry, *, journal_id: str) -> pb.ExecResponse:
    match answer:
        case StreamOutput():
            return pb.ExecResponse(output=pb.ExecOutput(stream=_STREAMS[answer.stream], data=answer.data))
        case JournalEntry():
            return pb.ExecResponse(exited=entry_to_proto(answer, journal_id=journal_id))
        case pid:
            return pb.ExecResponse(started=pb.ExecStarted(pid=pid))


def _no_target(field: str) -> InvalidArgument:
    return InvalidArgument(violations=[Violation(field=field, description="must be the first message of the stream")])
