"""A node's lease from the API's side: renewed after a whole introduction only, and lost for as long as it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from api_service.deadline import Deadline
from api_service.nodes.lease import LeaseTerms, NodeLease
from api_service.nodes.lease_promise import LeasePromise
from api_service.nodes.registry import Node
from common.errors import SlipwayError, Unavailable

TERMS = LeaseTerms(ttl=0.2, margin=0.1)
PATIENCE = 60.0  # seconds until a test that waits has failed


@dataclass
class Executor:
    connected: bool = False
    renewals: list[str] = field(default_factory=list)
    renewed: asyncio.Event = field(default_factory=asyncio.Event)
    interrupted: asyncio.Event = field(default_factory=asyncio.Event)

    async def renew_lease(self, word: str, *, ttl: float, deadline: Deadline) -> str:
        self.renewals.append(word)
        self.renewed.set()
        return "word"

    def interrupt(self, why: SlipwayError) -> None:
        self.interrupted.set()


@dataclass
class Promise:
    seconds: float = TERMS.ttl
    failure: SlipwayError | None = None
    written: asyncio.Event = field(default_factory=asyncio.Event)

    async def longest(self) -> float:
        return self.seconds

    async def put(self, seconds: float) -> None:
        if self.failure is not None:
            raise self.failure
        self.seconds = seconds
        self.written.set()


@asynccontextmanager
async def held(
    executor: Executor,
    on_lost: Callable[[float], Awaitable[None]],
    terms: LeaseTerms = TERMS,
    promise: Promise | None = None,
) -> AsyncIterator[NodeLease]:
    node = cast("Node", SimpleNamespace(name="a", executor=executor, follower=executor))
    lease = NodeLease(node, terms, cast("LeasePromise", promise or Promise()), on_lost=on_lost)
    await lease.inherit("")
    holding = asyncio.create_task(lease.hold_forever())
    try:
        yield lease
    finally:
        holding.cancel()
        await asyncio.wait([holding])
        assert holding.cancelled(), "it has ended by itself"


async def never(after: float) -> None:
    raise AssertionError("it is not lost")


async def test_who_comes_back_while_it_is_left_is_introduced_after_all_has_left() -> None:
    """What left after it was looked at would be started there by the node, and run twice."""
    executor, leaving, gate = Executor(), asyncio.Event(), asyncio.Event()
    here = {"web"}

    async def lost(after: float) -> None:
        leaving.set()
        await gate.wait()
        here.discard("web")

    async def introduce(lease: NodeLease) -> set[str]:
        async with lease.introduction():
            return set(here)

    async with asyncio.timeout(PATIENCE), held(executor, lost) as lease:
        await leaving.wait()
        introducing = asyncio.create_task(introduce(lease))
        await asyncio.wait([introducing], timeout=TERMS.ttl)
        assert executor.renewals == []
        gate.set()
        assert await introducing == set()
        await executor.renewed.wait()


async def test_it_begins_as_soon_as_the_node_is_introduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not with the next look: by then somebody may have been told that the node is ready."""
    monkeypatch.setattr("api_service.nodes.lease._LONGEST_RETRY", 3600.0)
    executor = Executor()
    async with held(executor, never, terms=LeaseTerms(ttl=36000.0)) as lease:
        await asyncio.sleep(0)  # it has looked, and pauses
        async with lease.introduction():
            assert executor.renewals == []
        await asyncio.wait_for(executor.renewed.wait(), PATIENCE)


async def test_nothing_leaves_while_a_node_is_introduced() -> None:
    executor, lost = Executor(), asyncio.Event()

    async def leave(after: float) -> None:
        lost.set()

    async with asyncio.timeout(PATIENCE), held(executor, leave) as lease:
        async with lease.introduction():
            await asyncio.sleep(2 * TERMS.term())
            assert not lost.is_set()
        await executor.renewed.wait()
        assert not lost.is_set()


async def test_who_was_lost_on_its_way_back_is_introduced_again() -> None:
    executor = Executor()

    async def leave(after: float) -> None:
        executor.connected = True

    async with asyncio.timeout(PATIENCE), held(executor, leave):
        await executor.interrupted.wait()
        assert executor.renewals == []


async def test_a_loss_that_cannot_be_written_down_is_tried_again() -> None:
    executor, again = Executor(), asyncio.Event()
    failures = [Unavailable("the store"), Unavailable("the store")]

    async def leave(after: float) -> None:
        if failures:
            raise failures.pop()
        again.set()

    async with asyncio.timeout(PATIENCE), held(executor, leave) as lease:
        await again.wait()
        async with lease.introduction():
            pass
        await executor.renewed.wait()


async def test_a_lease_is_on_record_before_it_is_given() -> None:
    executor, promise = Executor(), Promise(seconds=0.0, failure=Unavailable("the store"))
    async with asyncio.timeout(PATIENCE), held(executor, never, LeaseTerms(ttl=3600.0), promise) as lease:
        with pytest.raises(Unavailable):
            async with lease.introduction():
                raise AssertionError("it goes on without it")
        promise.failure = None
        async with lease.introduction():
            assert promise.seconds == 3600.0
        assert executor.renewals == []
        await executor.renewed.wait()


async def test_a_longer_lease_of_another_service_is_waited_for() -> None:
    executor, lost = Executor(), asyncio.get_running_loop().create_future()

    async def leave(after: float) -> None:
        if not lost.done():
            lost.set_result(after)

    begun = time.monotonic()
    async with asyncio.timeout(PATIENCE), held(executor, leave, promise=Promise(seconds=5 * TERMS.ttl)):
        assert await lost >= 5 * TERMS.ttl
        assert time.monotonic() - begun >= 5 * TERMS.ttl


async def test_a_longer_lease_is_forgotten_when_it_is_over() -> None:
    executor, promise = Executor(), Promise(seconds=5 * TERMS.ttl)
    begun = time.monotonic()
    async with asyncio.timeout(PATIENCE), held(executor, never, promise=promise) as lease:
        async with lease.introduction():
            pass
        await promise.written.wait()
        assert promise.seconds == TERMS.ttl
        assert time.monotonic() - begun >= 5 * TERMS.ttl


async def test_a_lease_that_is_withheld_is_over_in_time_though_the_node_answers() -> None:
    """The journal is followed all the same. It is renewed after an introduction that withholds nothing."""
    executor, lost = Executor(connected=True), asyncio.Event()

    async def leave(after: float) -> None:
        assert lease.withheld == "web may run there"
        lost.set()

    async with asyncio.timeout(PATIENCE), held(executor, leave) as lease:
        async with lease.introduction():
            lease.withhold("web may run there")
        executor.interrupted.clear()
        await lost.wait()
        lost.clear()
        await lost.wait()
        assert executor.renewals == []
        assert not executor.interrupted.is_set()
        async with lease.introduction():
            pass
        await executor.renewed.wait()
        assert lease.withheld == ""


async def test_a_lease_that_is_in_force_is_not_withheld() -> None:
    executor = Executor(connected=True)
    async with asyncio.timeout(PATIENCE), held(executor, never) as lease:
        async with lease.introduction():
            pass
        await executor.renewed.wait()
        async with lease.introduction():
            lease.withhold("web may run there")
        assert lease.withheld == ""
        executor.renewed.clear()
        await executor.renewed.wait()
