"""One upload that several nodes take in: each gets all of it, no faster than the slowest of them takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

_AHEAD = 4  # chunks that one may be behind

T = TypeVar("T")


async def for_each(
    chunks: AsyncIterator[bytes], takers: Sequence[Callable[[AsyncIterator[bytes]], Awaitable[T]]]
) -> list[T | BaseException]:
    """What each made of it, or what it failed with, in their order. What the upload itself fails with all fail with."""
    if len(takers) == 1:
        return list(await asyncio.gather(takers[0](chunks), return_exceptions=True))
    copies = [_Copy() for _ in takers]
    taking = [asyncio.ensure_future(taker(copy.read())) for taker, copy in zip(takers, copies, strict=True)]
    for task, copy in zip(taking, copies, strict=True):
        task.add_done_callback(copy.abandon)
    try:
        await _hand_out(chunks, copies)
        return list(await asyncio.gather(*taking, return_exceptions=True))
    finally:
        for task in taking:
            task.cancel()
        await asyncio.wait(taking)


async def _hand_out(chunks: AsyncIterator[bytes], copies: Sequence[_Copy]) -> None:
    end: BaseException | None = None
    try:
        async for chunk in chunks:
            for copy in copies:
                await copy.put(chunk)
            if all(copy.abandoned for copy in copies):
                return
    except Exception as error:
        end = error
    for copy in copies:
        await copy.put(end)


class _Copy:
    """`None` ends it, an exception is raised to the reader."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(_AHEAD)
        self.abandoned = False

    async def put(self, item: bytes | BaseException | None) -> None:
        if not self.abandoned:
            await self._waiting.put(item)

    def abandon(self, _: object) -> None:
        """Its reader has gone: nobody waits for it any more."""
        self.abandoned = True
        while not self._waiting.empty():
            self._waiting.get_nowait()

    async def read(self) -> AsyncIterator[bytes]:
        while (item := await self._waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
