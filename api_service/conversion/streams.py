"""The messages of attach and exec, both the client's and the executor's, to this service's words and back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from slipway.v1 import container_service_pb2 as container_pb2
from slipway.v1 import exec_service_pb2 as pb2

from api_service.conversion.console_size import size_from_proto, size_to_proto
from api_service.conversion.times import optional_timestamp, timestamp
from api_service.executor_client.logs import LogStream
from api_service.executor_client.streams import StreamOutput
from api_service.operations.container_attach import Attach, Attached, AttachEnded
from api_service.operations.exec_start import ExecBegan, ExecEnded, ExecStart
from api_service.operations.stream_input import Typed
from api_service.records.exec import ExecConfig, ExecRecord
from common.errors import InvalidArgument, Violation

_STREAMS = {
    LogStream.STDOUT: container_pb2.OUTPUT_STREAM_STDOUT,
    LogStream.STDERR: container_pb2.OUTPUT_STREAM_STDERR,
}


def exec_config_from_proto(message: pb2.ExecConfig) -> ExecConfig:
    return ExecConfig(
        cmd=tuple(message.cmd),
        env=tuple(message.env),
        working_dir=message.working_dir,
        user=message.user,
        tty=message.tty,
        attach_stdin=message.attach_stdin,
        attach_stdout=message.attach_stdout,
        attach_stderr=message.attach_stderr,
        detach_keys=message.detach_keys,
        privileged=message.privileged,
        console_size=size_from_proto(message.console_size) if message.HasField("console_size") else None,
    )


def exec_to_proto(record: ExecRecord) -> pb2.Exec:
    config = record.config
    return pb2.Exec(
        id=record.id,
        container_id=record.container_id,
        config=pb2.ExecConfig(
            cmd=config.cmd,
            env=config.env,
            working_dir=config.working_dir,
            user=config.user,
            tty=config.tty,
            attach_stdin=config.attach_stdin,
            attach_stdout=config.attach_stdout,
            attach_stderr=config.attach_stderr,
            detach_keys=config.detach_keys,
            privileged=config.privileged,
            console_size=size_to_proto(config.console_size),
        ),
        running=record.running,
        pid=record.pid,
        exit_code=record.exit_code,
        error=record.error,
        created_at=timestamp(record.created_at),
        started_at=optional_timestamp(record.started_at),
        finished_at=optional_timestamp(record.finished_at),
    )


def exec_start_from_proto(message: pb2.ExecTarget) -> ExecStart:
    return ExecStart(
        exec=message.exec,
        detach=message.detach,
        console_size=size_from_proto(message.console_size) if message.HasField("console_size") else None,
    )


def exec_answer_to_proto(answer: ExecBegan | StreamOutput | ExecEnded) -> pb2.StartExecResponse:
    match answer:
        case ExecBegan():
            return pb2.StartExecResponse(begin=pb2.ExecBegin(id=answer.id, pid=answer.pid))
        case StreamOutput():
            return pb2.StartExecResponse(output=_output(answer))
        case ExecEnded():
            end = pb2.ExecEnd(exit_code=answer.exit_code, detached=answer.detached, error=answer.error)
            return pb2.StartExecResponse(end=end)


def attach_from_proto(message: container_pb2.AttachTarget) -> Attach:
    return Attach(
        container=message.container,
        stdin=message.stdin if message.HasField("stdin") else None,
        stdout=message.stdout if message.HasField("stdout") else None,
        stderr=message.stderr if message.HasField("stderr") else None,
        detach_keys=message.detach_keys,
    )


def attach_answer_to_proto(answer: Attached | StreamOutput | AttachEnded) -> container_pb2.AttachContainerResponse:
    match answer:
        case Attached():
            begin = container_pb2.AttachBegin(id=answer.id, tty=answer.tty)
            return container_pb2.AttachContainerResponse(begin=begin)
        case StreamOutput():
            return container_pb2.AttachContainerResponse(output=_output(answer))
        case AttachEnded():
            return container_pb2.AttachContainerResponse(end=container_pb2.AttachEnd(detached=answer.detached))


def _output(output: StreamOutput) -> container_pb2.Output:
    return container_pb2.Output(stream=_STREAMS[output.stream], data=output.data)


async def typed(
    requests: AsyncIterator[pb2.StartExecRequest] | AsyncIterator[container_pb2.AttachContainerRequest],
) -> AsyncIterator[Typed]:
    """What comes after the first message. Raises InvalidArgument when that comes again."""
    try:
        async for request in requests:
            said = request.WhichOneof("request")
            if said in ("start", "attach"):
                why = "came a second time: only the first message of the stream says it"
                raise InvalidArgument(violations=[Violation(field=said, description=why)])
            yield Typed(
                data=request.stdin,
                end=request.close_stdin,
                resize=size_from_proto(request.resize) if said == "resize" else None,
            )
    except grpc.aio.BaseError:
        return  # the call has ended meanwhile
