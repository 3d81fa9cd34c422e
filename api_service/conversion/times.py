"""Times of the protocol and the records': a Timestamp and nanoseconds since the epoch, a Duration and nanoseconds."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(nanoseconds: int) -> Timestamp:
    # Not FromNanoseconds(), which takes three times as long, and a log has a time in each line.
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def optional_timestamp(nanoseconds: int | None) -> Timestamp | None:
    return timestamp(nanoseconds) if nanoseconds is not None else None


def duration(length: int) -> Duration | None:
    """None for 0, which means that none was given."""
    if not length:
        return None
    message = Duration()
    message.FromNanoseconds(length)
    return message


def nanoseconds(message: Duration) -> int:
    # Not ToNanoseconds(): it refuses lengths that a client may well send.
    return message.seconds * 1_000_000_000 + message.nanos


def moment(message: Timestamp) -> int:
    """Nanoseconds since the epoch, of a client's. Not ToNanoseconds(): it refuses what no rule of the protocol forbids,
    a second's worth of nanoseconds and more."""
    return message.seconds * 1_000_000_000 + message.nanos
