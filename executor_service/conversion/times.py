"""Times: a Timestamp and nanoseconds since the epoch."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time: int) -> Timestamp:
    # Not FromNanoseconds(), which takes three times as long, and a log has a time in each line.
    seconds, nanos = divmod(time, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def nanoseconds(message: Timestamp) -> int:
    # Not ToNanoseconds(): it refuses times that a client may well send.
    return message.seconds * 1_000_000_000 + message.nanos
