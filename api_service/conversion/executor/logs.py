"""What containers have written."""

from __future__ import annotations

from collections.abc import Iterable

from slipway.executor.v1 import runtime_service_pb2 as pb2

from api_service.conversion.times import timestamp
from api_service.executor_client.logs import LogLine, LogQuery, LogStream

_LOG_STREAMS = {
    pb2.LOG_STREAM_STDOUT: LogStream.STDOUT,
    pb2.LOG_STREAM_STDERR: LogStream.STDERR,
}


def log_query_to_proto(query: LogQuery) -> pb2.ReadLogsRequest:
    request = pb2.ReadLogsRequest(
        container_id=query.container_id,
        stdout=query.stdout,
        stderr=query.stderr,
        follow=query.follow,
        tail=query.tail,
    )
    if query.since is not None:
        request.since.CopyFrom(timestamp(query.since))
    if query.until is not None:
        request.until.CopyFrom(timestamp(query.until))
    return request


def log_lines_from_proto(messages: Iterable[pb2.LogLine]) -> list[LogLine]:
    lines = []
    for message in messages:
        written = message.timestamp
        # Not ToNanoseconds(), which costs more than the rest of the line.
        time = written.seconds * 1_000_000_000 + written.nanos
        stream = _LOG_STREAMS.get(message.stream, LogStream.STDOUT)
        lines.append(LogLine(stream, time, message.data, message.dropped))
    return lines
