"""What a client types, on its way to a process: detach keys taken out, resizes done beside, an end for an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from api_service.nodes.executor import StreamInput
from api_service.records.config import ConsoleSize
from api_service.validation.detach_keys import KeyScanner
from common.errors import FailedPrecondition

T = TypeVar("T")

_END = object()

Resize = Callable[[ConsoleSize], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """One message of a client."""

    data: bytes = b""
    end: bool = False
    resize: ConsoleSize | None = None


@dataclass(slots=True, kw_only=True)
class ClientInput:
    """`scanner`: None without a terminal. `detached` is set when the keys were typed."""

    typed: AsyncIterator[Typed]
    resize: Resize
    scanner: KeyScanner | None = None
    detached: asyncio.Event = field(default_factory=asyncio.Event)

    async def to_process(self) -> AsyncIterator[StreamInput]:
        """Ends after the keys; a client that sends no more has sent an end."""
        ended = False
        async for message in self.typed:
            if message.resize is not None:
                with suppress(FailedPrecondition):  # not started yet, or over
                    await self.resize(message.resize)
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
        if not ended:
            yield StreamInput(end=True)


async def until(answers: AsyncIterator[T], over: asyncio.Event) -> AsyncIterator[T]:
    """The answers, until the event is set."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(over.wait())
    try:
        while True:
            coming: asyncio.Future[Any] = asyncio.ensure_future(anext(answers, _END))
            try:
                await asyncio.wait({coming, waiting}, return_when=asyncio.FIRST_COMPLETED)
                if not coming.done() or (answer := coming.result()) is _END:
                    return
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.wait({coming})
            yield answer
    finally:
        waiting.cancel()
