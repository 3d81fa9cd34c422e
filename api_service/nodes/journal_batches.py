"""Answers of a node's journal, gathered as they come: who applies many at a time falls behind later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from api_service.executor_client.journal import JournalAnswer
from common.errors import SlipwayError

MAX_BATCH = 64


async def batches(
    answers: AsyncIterator[JournalAnswer], waiting: asyncio.Queue[JournalAnswer | BaseException]
) -> AsyncGenerator[list[JournalAnswer]]:
    """What came while the batch before was being applied, at most `MAX_BATCH` answers and never none. `waiting` is
    empty, and of that size; an exception in it ends the answers with that."""

    async def pump() -> None:
        try:
            async for answer in answers:
                await waiting.put(answer)
            await waiting.put(SlipwayError("the node ended the stream", reason="JOURNAL_ENDED"))
        except Exception as error:
            await waiting.put(error)

    task = asyncio.create_task(pump())
    try:
        while True:
            batch = [await waiting.get()]
            while not waiting.empty():
                batch.append(waiting.get_nowait())
            good = [item for item in batch if not isinstance(item, BaseException)]
            if good:
                yield good
            for item in batch:
                if isinstance(item, BaseException):
                    raise item
    finally:
        task.cancel()
        await asyncio.wait([task])
