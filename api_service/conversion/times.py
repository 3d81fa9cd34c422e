"""Times of the protocol and the records': a Timestamp and nanoseconds since the epoch."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(nanoseconds: int) -> Timestamp:
    message = Timestamp()
    message.FromNanoseconds(nanoseconds)
    return message


def optional_timestamp(nanoseconds: int | None) -> Timestamp | None:
    return timestamp(nanoseconds) if nanoseconds is not None else None
