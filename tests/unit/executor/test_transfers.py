"""Equal pulls are one, and each of those who want it may leave."""

from __future__ import annotations

import asyncio
import time

import pytest

from common.errors import Unavailable
from executor_service.registry.source import Patience
from executor_service.storage.images import Image, PulledImage
from executor_service.storage.layer_progress import LayerPhase, LayerProgress, Report
from executor_service.tasks import Operations
from executor_service.transfers import Transfers

IMAGE = PulledImage(image=Image(id="sha256:1", config=b"", layers=(), size=1, created_at=""), digest="sha256:2")
LATER = float("inf")


class Work:
    """One pull that goes on when told."""

    def __init__(self) -> None:
        self.begun = 0
        self.patience: Patience = lambda: 0.0
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, report: Report, patience: Patience) -> PulledImage:
        self.begun += 1
        self.patience = patience
        report(progress(LayerPhase.WAITING))
        report(progress(LayerPhase.DOWNLOADING))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        report(progress(LayerPhase.DONE))
        return IMAGE


def progress(phase: LayerPhase) -> LayerProgress:
    return LayerProgress(digest="sha256:3", phase=phase, done=1, total=2)


async def test_two_share_one_pull_and_one_may_leave() -> None:
    work = Work()
    pulls: Transfers[PulledImage] = Transfers(Operations())
    first, second = pulls.follow("key", work, deadline=LATER), pulls.follow("key", work, deadline=LATER)
    assert await anext(first) == await anext(second) == progress(LayerPhase.DOWNLOADING)
    await first.aclose()
    work.go.set()
    assert [each async for each in second] == [progress(LayerPhase.DONE), IMAGE]
    assert work.begun == 1
    assert not work.cancelled.is_set()
    assert [each async for each in pulls.follow("key", work, deadline=LATER)][-1] == IMAGE
    assert work.begun == 2


async def test_the_last_to_leave_stops_it() -> None:
    work = Work()
    pulls: Transfers[PulledImage] = Transfers(Operations())
    first, second = pulls.follow("key", work, deadline=LATER), pulls.follow("key", work, deadline=LATER)
    await anext(first)
    await anext(second)
    await first.aclose()
    assert not work.cancelled.is_set()
    await second.aclose()
    await asyncio.wait_for(work.cancelled.wait(), 60)
    work.go.set()
    assert [each async for each in pulls.follow("key", work, deadline=LATER)][-1] == IMAGE


async def test_others_are_others_and_a_stop_is_told() -> None:
    work, operations = Work(), Operations()
    pulls: Transfers[PulledImage] = Transfers(operations)
    first, second = pulls.follow("a", work, deadline=LATER), pulls.follow("b", work, deadline=LATER)
    await anext(first)
    await anext(second)
    assert work.begun == 2
    await operations.drain(timeout=0)
    with pytest.raises(Unavailable, match="goes on where it stopped"):
        await anext(first)
    with pytest.raises(Unavailable):
        await anext(pulls.follow("c", work, deadline=LATER))
    await second.aclose()


async def test_the_most_patient_follower_counts() -> None:
    work = Work()
    pulls: Transfers[PulledImage] = Transfers(Operations())
    now = time.monotonic()
    hurried, patient = (pulls.follow("key", work, deadline=now + seconds) for seconds in (10.0, 100.0))
    await anext(hurried)
    assert 0 < work.patience() <= 10
    await anext(patient)
    assert 10 < work.patience() <= 100
    await patient.aclose()
    assert 0 < work.patience() <= 10
    await hurried.aclose()
