"""Streams of requests that begin with a message saying what the chunks after it are for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

from common.errors import InvalidArgument, Violation


class Chunked(Protocol):
    """A message with a `chunk`, or the field that comes first."""

    @property
    def chunk(self) -> bytes: ...

    def HasField(self, field_name: Any) -> bool: ...


MessageT = TypeVar("MessageT", bound=Chunked)


async def first_message(requests: AsyncIterator[MessageT], field: str) -> MessageT:
    """Raises InvalidArgument when it is not the one with `field`."""
    first = await anext(requests, None)
    if first is None or not first.HasField(field):
        why = f"must be the first message: send the {field}, then the tar in chunks"
        raise InvalidArgument(violations=[Violation(field=field, description=why)])
    return first


async def chunks_after(requests: AsyncIterator[Chunked], field: str) -> AsyncIterator[bytes]:
    """The chunks of the rest. Raises InvalidArgument when `field` comes again."""
    async for request in requests:
        if request.HasField(field):
            why = f"came a second time: there is one {field}, and it is the first message"
            raise InvalidArgument(violations=[Violation(field=field, description=why)])
        yield request.chunk


class Said(Protocol):
    def HasField(self, field_name: Any) -> bool: ...


SaidT = TypeVar("SaidT", bound=Said)


async def first_with(requests: AsyncIterator[SaidT], field: str) -> SaidT:
    """Raises InvalidArgument when the first message is not the one with `field`."""
    first = await anext(requests, None)
    if first is None or not first.HasField(field):
        why = "must be the first message of the stream; what is typed comes after it"
        raise InvalidArgument(violations=[Violation(field=field, description=why)])
    return first
