"""What a client types, on its way to a process: detach keys taken out, an end for an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from api_service.executor_client.streams import StreamInput
from api_service.records.config import ConsoleSize
from api_service.validation.detach_keys import KeyScanner
from common.errors import SlipwayError

T = TypeVar("T")

_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """One message of a client."""

    data: bytes = b""
    end: bool = False
    resize: ConsoleSize | None = None


@dataclass(slots=True, kw_only=True)
class ClientInput:
    """`scanner`: None without a terminal. `detached` is set when the keys were typed, `broken` when the client sent
    what it may not: `refuse` raises that."""

    typed: AsyncIterator[Typed]
    scanner: KeyScanner | None = None
    detached: asyncio.Event = field(default_factory=asyncio.Event)
    broken: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: asyncio.Event = field(default_factory=asyncio.Event)
    _error: SlipwayError | None = None

    async def to_process(self) -> AsyncIterator[StreamInput]:
        """Ends after the keys; a client that sends no more has sent an end. Never fails: gRPC would cancel the call to
        the node for it, and nobody would learn why."""
        ended = False
        try:
            async for message in self.typed:
                if message.resize is not None:
                    yield StreamInput(resize=message.resize)
                data, leaves = self.scanner.scan(message.data) if self.scanner is not None else (message.data, False)
                if data and not ended:
                    yield StreamInput(data=data)
                if leaves:
                    self.detached.set()
                    yield StreamInput(detach=True)
                    return
                if message.end and not ended:
                    ended = True
                    yield StreamInput(end=True)
        except SlipwayError as error:
            self._error = error
            self.broken.set()
            # An end here would be one of the input, and the program might end well before its call is broken off.
            await self._closed.wait()
            return
        if not ended:
            yield StreamInput(end=True)

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Around what is done with it."""
        try:
            yield
        finally:
            self._closed.set()

    def refuse(self) -> None:
        """Raises what the client's messages did."""
        if self._error is not None:
            raise self._error


async def until(answers: AsyncIterator[T], *over: asyncio.Event) -> AsyncGenerator[T]:
    """The answers, until one of the events is set."""
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in over]
    try:
        while True:
            coming: asyncio.Future[Any] = asyncio.ensure_future(anext(answers, _END))
            try:
                await asyncio.wait([coming, *waiting], return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() or (answer := coming.result()) is _END:
                    return
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.wait({coming})
            yield answer
    finally:
        for each in waiting:
            each.cancel()
