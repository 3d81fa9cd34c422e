"""One pull on several nodes, told as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from api_service.executor_client.images import LayerPhase, LayerProgress
from api_service.records.image import ImageRecord

_ORDER = [LayerPhase.WAITING, LayerPhase.DOWNLOADING, LayerPhase.UNPACKING, LayerPhase.EXISTS, LayerPhase.DONE]
_AT_ONCE = 16  # nodes that pull at the same time
_UNREAD = 64  # answers


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledRecord:
    """The image with all its names; `digest` is the manifest's."""

    image: ImageRecord
    digest: str


Answers = AsyncGenerator[LayerProgress | PulledRecord]


async def side_by_side(pulls: Mapping[str, Answers]) -> Answers:
    """`pulls` by node. The progress of a layer is that of the node that is furthest behind; the image comes when all
    have ended. What one of them raises is raised then."""
    told: asyncio.Queue[tuple[str, LayerProgress] | None] = asyncio.Queue(_UNREAD)
    room = asyncio.Semaphore(_AT_ONCE)

    async def follow(node: str, answers: Answers) -> PulledRecord | None:
        pulled = None
        async with room, aclosing(answers):
            async for answer in answers:
                if isinstance(answer, PulledRecord):
                    pulled = answer
                else:
                    await told.put((node, answer))
        return pulled

    async def follow_all() -> list[PulledRecord | BaseException | None]:
        outcomes = await asyncio.gather(*(follow(*each) for each in pulls.items()), return_exceptions=True)
        await told.put(None)
        return outcomes

    following = asyncio.create_task(follow_all())
    try:
        layers: dict[str, dict[str, LayerProgress]] = {}
        while (item := await told.get()) is not None:
            node, progress = item
            of_layer = layers.setdefault(progress.digest, {})
            of_layer[node] = progress
            yield min(of_layer.values(), key=_place)
        outcomes = await following
    finally:
        following.cancel()
        await asyncio.wait([following])
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    # The last record has all nodes.
    yield max((each for each in outcomes if isinstance(each, PulledRecord)), key=lambda each: len(each.image.nodes))


def _place(progress: LayerProgress) -> tuple[int, int]:
    return _ORDER.index(progress.phase), progress.done
