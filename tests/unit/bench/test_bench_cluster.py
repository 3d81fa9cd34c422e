"""What the benchmark of clusters says of its aims, and that only its first interruption counts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from tests.bench import cluster_scale, cluster_steps, interrupts
from tests.bench.cluster_scale import FILTERED, UNFILTERED, Scale
from tests.bench.cluster_steps import EMBEDDED, ONE, THREE, Steps
from tests.bench.report import MET, NOT_MET


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in interrupts.INTERRUPTS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_start_through_etcd_is_judged_by_what_it_takes_beyond_the_embedded_store() -> None:
    found = Steps()
    for name, start in ((EMBEDDED, 8.0), (ONE, 12.0), (THREE, 13.5)):
        for step, time in (("create", 1.0), ("start", start), ("inspect", 1.0)):
            found.times[name][step].append(time)
        found.rates[name].append({"created and inspected, a second": 100.0})
    assert [(each.figure, each.verdict) for each in cluster_steps.aims(found)] == [(5.5, NOT_MET), (4.0, MET)]
    assert " 13.5 |" in cluster_steps.tables(found)


def test_pages_and_memory_are_judged() -> None:
    pages = {FILTERED: [9.0, 9.5, 30.0], UNFILTERED: [11.0]}
    found = Scale(nodes=1, containers=1, serves=1, met=2, resting=3, pages=pages, memory=400, resident=501)
    assert [(each.figure, each.verdict) for each in cluster_scale.aims(found)] == [(9.5, MET), (501, NOT_MET)]


async def test_the_first_interruption_alone_is_heeded(handlers: None) -> None:
    cleaned = asyncio.Event()

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0)
            cleaned.set()

    assert not await interrupts.interruptible(work())
    assert cleaned.is_set()


async def test_what_fails_by_itself_is_told(handlers: None) -> None:
    async def work() -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        await interrupts.interruptible(work())
