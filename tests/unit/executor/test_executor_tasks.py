from __future__ import annotations

import asyncio

import pytest

from common.errors import ResourceExhausted, Unavailable
from executor_service.tasks import Operations, bounded, together


async def test_an_abandoned_operation_finishes_or_is_cancelled() -> None:
    for abandoned, ends in (("finish", "done"), ("cancel", "cancelled")):
        operations, started, release = Operations(), asyncio.Event(), asyncio.Event()
        outcome: list[str] = []

        async def work(
            started: asyncio.Event = started, release: asyncio.Event = release, outcome: list[str] = outcome
        ) -> None:
            started.set()
            try:
                await release.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)  # an undo that takes a while
                outcome.append("cancelled")
                raise
            outcome.append("done")

        call = asyncio.ensure_future(operations.run(work(), abandoned=abandoned))  # type: ignore[arg-type]  # one of the two
        await started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        release.set()
        await operations.drain(timeout=5)
        assert outcome == [ends]


async def test_draining_waits_and_then_cancels() -> None:
    operations = Operations()
    undone: list[bool] = []

    async def stuck() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            undone.append(True)

    call = asyncio.ensure_future(operations.run(stuck(), abandoned="finish"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await operations.drain(timeout=0.01)
    assert undone == [True]
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(Unavailable):
        await operations.run(stuck(), abandoned="finish")


async def test_operations_are_bounded_in_number() -> None:
    """Those that somebody asks for: a node may have any number of containers to put right."""
    operations, release = Operations(limit=2), asyncio.Event()

    async def work() -> None:
        await release.wait()

    for _ in range(3):
        operations.start(work())
    calls = [asyncio.ensure_future(operations.run(work(), abandoned="finish")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted):
        await operations.run(work(), abandoned="finish")
    release.set()
    await asyncio.gather(*calls)
    await operations.run(work(), abandoned="finish")


async def test_the_first_failure_ends_what_runs_beside_it_before_it_is_told() -> None:
    ended: list[str] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("first")

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("slow")

    with pytest.raises(ValueError, match="first"):
        await together(fail(), slow())
    assert ended == ["slow"]


async def test_a_cancel_ends_all_that_run_side_by_side() -> None:
    ended: list[int] = []

    async def slow(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    running = asyncio.ensure_future(together(slow(1), slow(2)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(ended) == [1, 2]


async def test_a_step_of_an_undo_never_raises_and_never_hangs() -> None:
    async def fail() -> None:
        raise OSError("no")

    async def hang() -> None:
        await asyncio.Event().wait()

    async def succeed() -> None:
        return

    assert not await bounded("step", fail, timeout=1, container="c")
    assert not await bounded("step", hang, timeout=0.01, container="c")
    assert await bounded("step", succeed, timeout=1, container="c")


async def test_a_step_of_an_undo_is_whole_in_a_cancelled_task() -> None:
    done: list[bool] = []

    async def step() -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(0.01)
        done.append(True)

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            assert await bounded("step", step, timeout=1, container="c")

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]
