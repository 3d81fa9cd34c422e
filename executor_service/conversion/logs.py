"""What containers have written."""

from __future__ import annotations

from collections.abc import Iterable

from slipway.executor.v1 import runtime_service_pb2 as pb2

from executor_service.conversion.times import nanoseconds, timestamp
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
    lines = (
        pb2.LogLine(
            stream=_STREAMS[record.stream],
            timestamp=timestamp(record.timestamp),
            data=record.data,
            dropped=record.dropped,
        )
        for record in records
    )
    return pb2.ReadLogsResponse(lines=lines)
