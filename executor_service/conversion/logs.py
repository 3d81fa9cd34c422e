"""What containers have written."""

from __future__ import annotations

from collections.abc import Iterable

from slipway.executor.v1 import runtime_service_pb2 as pb2

from executor_service.conversion.times import nanoseconds
from executor_service.logs.reader import LogQuery
from executor_service.logs.record import LogRecord, Stream

_STREAMS = {
    Stream.STDOUT: pb2.LOG_STREAM_STDOUT,
    Stream.STDERR: pb2.LOG_STREAM_STDERR,
}


def log_query_from_proto(message: pb2.ReadLogsRequest) -> LogQuery:
    return LogQuery(
        tail=message.tail if message.HasField("tail") else None,
        since=nanoseconds(message.since) if message.HasField("since") else None,
        # `until` is exclusive on the wire and inclusive here.
        until=nanoseconds(message.until) - 1 if message.HasField("until") else None,
        follow=message.follow,
        stdout=message.stdout,
        stderr=message.stderr,
    )


def log_records_to_proto(records: Iterable[LogRecord]) -> pb2.ReadLogsResponse:
    response = pb2.ReadLogsResponse()
    lines = response.lines
    for record in records:
        # Filled in its place: a message that is made and then copied into another takes more than twice as long.
        line = lines.add()
        line.stream = _STREAMS[record.stream]
        time = line.timestamp
        time.seconds, time.nanos = divmod(record.timestamp, 1_000_000_000)
        line.data = record.data
        if record.dropped:
            line.dropped = record.dropped
    return response
