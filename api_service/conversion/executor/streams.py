"""Attach and exec."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from slipway.executor.v1 import container_spec_pb2 as spec_pb2
from slipway.executor.v1 import runtime_service_pb2 as pb2

from api_service.conversion.executor.journal import entry_from_proto
from api_service.executor_client.logs import LogStream
from api_service.executor_client.streams import AttachTarget, ExecAnswer, ExecRuns, ExecSpec, StreamInput, StreamOutput
from api_service.records.config import ConsoleSize


async def exec_requests(
    spec: ExecSpec, inputs: AsyncIterator[StreamInput], begun: asyncio.Event
) -> AsyncIterator[pb2.ExecRequest]:
    """The input waits until the node has answered: gRPC loses the reason of a refusal while it sends."""
    yield pb2.ExecRequest(exec=_exec_spec(spec))
    await begun.wait()
    async for each in inputs:
        if each.resize is not None:
            yield pb2.ExecRequest(resize=_size(each.resize))
        if each.data:
            yield pb2.ExecRequest(stdin=each.data)
        if each.end:
            yield pb2.ExecRequest(close_stdin=True)
        if each.detach:
            yield pb2.ExecRequest(detach=True)


def _exec_spec(spec: ExecSpec) -> pb2.ExecSpec:
    message = pb2.ExecSpec(
        id=spec.id,
        container_id=spec.container_id,
        args=spec.args,
        env=spec.env,
        working_dir=spec.working_dir,
        user=spec.user,
        group_add=spec.group_add,
        capabilities=spec.capabilities,
        no_new_privileges=spec.no_new_privileges,
        terminal=spec.terminal,
        stdin=spec.stdin,
        stdout=spec.stdout,
        stderr=spec.stderr,
        detach=spec.detach,
    )
    if spec.terminal_size is not None:
        message.terminal_size.CopyFrom(_size(spec.terminal_size))
    return message


def exec_answer_from_proto(message: pb2.ExecResponse) -> ExecAnswer:
    if message.HasField("started"):
        return ExecRuns(pid=message.started.pid)
    if message.HasField("exited"):
        return entry_from_proto(message.exited)
    return _output_from_proto(message.output.stream, message.output.data)


async def attach_requests(
    target: AttachTarget, inputs: AsyncIterator[StreamInput], begun: asyncio.Event
) -> AsyncIterator[pb2.AttachContainerRequest]:
    """As `exec_requests`."""
    asked = pb2.AttachTarget(
        container_id=target.container_id, stdin=target.stdin, stdout=target.stdout, stderr=target.stderr
    )
    yield pb2.AttachContainerRequest(attach=asked)
    await begun.wait()
    async for each in inputs:
        if each.resize is not None:
            yield pb2.AttachContainerRequest(resize=_size(each.resize))
        if each.data:
            yield pb2.AttachContainerRequest(stdin=each.data)
        if each.end:
            yield pb2.AttachContainerRequest(close_stdin=True)


def attach_answer_from_proto(message: pb2.AttachContainerResponse) -> StreamOutput | None:
    """None: the attachment stands."""
    if message.stream == pb2.LOG_STREAM_UNSPECIFIED:
        return None
    return _output_from_proto(message.stream, message.data)


def _output_from_proto(stream: pb2.LogStream.ValueType, data: bytes) -> StreamOutput:
    error = stream == pb2.LOG_STREAM_STDERR
    return StreamOutput(stream=LogStream.STDERR if error else LogStream.STDOUT, data=data)


def set_size(message: pb2.ResizeTerminalRequest | pb2.ResizeExecTerminalRequest, size: ConsoleSize) -> None:
    message.size.CopyFrom(_size(size))


def _size(size: ConsoleSize) -> spec_pb2.TerminalSize:
    return spec_pb2.TerminalSize(height=size.height, width=size.width)
