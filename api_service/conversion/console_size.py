"""Between the message of a terminal's size and the records."""

from __future__ import annotations

from slipway.v1 import container_pb2 as pb2

from api_service.records.config import ConsoleSize


def size_from_proto(message: pb2.ConsoleSize) -> ConsoleSize:
    return ConsoleSize(height=message.height, width=message.width)


def size_to_proto(size: ConsoleSize | None) -> pb2.ConsoleSize | None:
    return pb2.ConsoleSize(height=size.height, width=size.width) if size is not None else None
