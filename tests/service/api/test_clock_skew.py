"""Machines whose clocks are ten minutes apart: two API services over one store, and executors. Nothing that one machine
decides may rest on what another's clock said."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import exec_service_pb2 as exec_pb2
from slipway.v1 import node_service_pb2 as node_pb2
from slipway.v1 import system_service_pb2 as system_pb2
from structlog.testing import capture_logs

from api_service.nodes.lease import LeaseTerms
from api_service.operations.exec_settle import settle_execs
from common.errors import Unavailable
from tests.fixtures.api import PATIENCE, Api, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor, serving_nodes
from tests.fixtures.shared_store import SharedStore

SKEW = 600 * 1_000_000_000  # nanoseconds
TERMS = LeaseTerms(ttl=3.0, margin=1.0)


def ahead(skew: int) -> int:
    return time.time_ns() + skew


@pytest.fixture
async def replicas(shared: SharedStore, executor: FakeExecutor) -> tuple[Api, Api]:
    """The first, which follows the journal, is ten minutes ahead of the second; the executor is between them."""
    one = await shared.join("one", executor, clock=lambda: ahead(SKEW // 2))
    two = await shared.join("two", executor, connected=False, clock=lambda: ahead(-SKEW // 2))
    await one.load()
    return one, two


async def _next(call: object, count: int) -> list[system_pb2.StreamEventsResponse]:
    return [await call.read() for _ in range(count)]  # type: ignore[attr-defined]


async def test_a_stream_misses_nothing_that_is_written_in_the_past(replicas: tuple[Api, Api]) -> None:
    fast, slow = replicas
    await fast.create(name="first")
    [*_, first] = await fast.events(1, type=["container"])
    moment = Timestamp()
    moment.CopyFrom(first.event.time)
    following = {
        name: api.system.StreamEvents(system_pb2.StreamEventsRequest(type=["container"], **query), timeout=PATIENCE)
        for api in replicas
        for name, query in (
            (f"{api.address} cursor", {"cursor": first.cursor}),
            (f"{api.address} since", {"since": moment}),
            (f"{api.address} now", {}),
        )
    }
    for name, call in following.items():
        await call.initial_metadata()
        if name.endswith("since"):
            [kept] = await _next(call, 1)
            assert kept.event.action == "create"
    await slow.create(name="past")
    await slow.start("past")
    await fast.create(name="future")
    expected = [("past", "create"), ("past", "start"), ("future", "create")]
    seen = {}
    for name, call in following.items():
        items = await _next(call, 3)
        seen[name] = [(item.event.attributes["name"], item.event.action) for item in items]
        times = [item.event.time.ToNanoseconds() for item in items]
        assert times[0] < times[1] < times[2]
        assert times[2] - times[0] > SKEW * 9 // 10
        cursors = [item.cursor for item in items]
        call.cancel()
    assert seen == dict.fromkeys(following, expected)
    # From each place on, on either service, what came after it and nothing else.
    for api in replicas:
        for place, cursor in enumerate([first.cursor, *cursors[:2]]):
            told = await api.events(3 - place, type=["container"], cursor=cursor)
            assert [(item.event.attributes["name"], item.event.action) for item in told] == expected[place:]


@pytest.mark.parametrize("skew", [SKEW, -SKEW])
async def test_a_record_has_the_times_of_its_node(replicas: tuple[Api, Api], executor: FakeExecutor, skew: int) -> None:
    executor.clock_ahead = skew
    for api in replicas:
        box = await api.run()
        waiting = asyncio.create_task(api.wait(box, pb2.WAIT_CONDITION_NEXT_EXIT))
        listed = await api.containers.ListContainers(pb2.ListContainersRequest(all=True))
        assert next(each for each in listed.containers if each.id == box).status.startswith("Up ")
        await api.stop(box)
        assert (await waiting).exit_code == 143
        state = (await api.inspect(box)).state
        began, ended = state.started_at.ToNanoseconds(), state.finished_at.ToNanoseconds()
        assert abs(began - ahead(skew)) < SKEW // 10
        assert began < ended < ahead(skew)


@pytest.mark.parametrize("skew", [SKEW, -SKEW])
async def test_an_end_that_nobody_saw_is_after_its_beginning(
    replicas: tuple[Api, Api], executor: FakeExecutor, skew: int
) -> None:
    executor.clock_ahead = skew
    box = await replicas[1].run()
    executor.new_journal()
    executor.containers.clear()
    await executor.down()
    await executor.up()
    ended = (await replicas[1].wait(box)).HasField("exit_code")
    assert not ended
    state = (await replicas[1].inspect(box)).state
    assert state.finished_at.ToNanoseconds() >= state.started_at.ToNanoseconds()


@pytest.mark.parametrize("skew", [SKEW, -SKEW])
async def test_execs_are_kept_by_nobodys_clock(replicas: tuple[Api, Api], executor: FakeExecutor, skew: int) -> None:
    executor.clock_ahead = skew
    one, two = replicas
    box = await one.run()
    made = [await _exec(api, box) for api in replicas]
    ended = await _exec(two, box)
    call = two.execs.StartExec(
        iter([exec_pb2.StartExecRequest(start=exec_pb2.ExecTarget(exec=ended, detach=True))]), timeout=PATIENCE
    )
    async for _ in call:
        pass
    executor.end_exec(executor.containers[box], ended)
    await one.followed()
    shown = (await two.execs.InspectExec(exec_pb2.InspectExecRequest(exec=ended))).exec
    assert not shown.running
    assert shown.finished_at.ToNanoseconds() >= shown.started_at.ToNanoseconds()
    for api in replicas:
        await api.engine.execs.forget_old()
        assert {each.id for each in await api.engine.execs.of(box)} == {*made, ended}
        later = time.monotonic() + 301
        api.engine.execs._elapsed = lambda later=later: later  # type: ignore[misc]
    await one.engine.execs.forget_old()
    assert {each.id for each in await two.engine.execs.of(box)} == set(made)


async def test_an_exec_whose_start_is_under_way_elsewhere_is_not_taken_back(
    replicas: tuple[Api, Api], executor: FakeExecutor
) -> None:
    one, two = replicas
    box = await one.run()
    taken = await _exec(two, box)
    gate = executor.fault("ExecAnswer", gate=asyncio.Event())
    call = two.execs.StartExec(
        iter([exec_pb2.StartExecRequest(start=exec_pb2.ExecTarget(exec=taken, detach=True))]), timeout=PATIENCE
    )
    await asyncio.wait_for(gate.reached.wait(), PATIENCE)
    executor.live_execs.clear()  # it does not know of it yet
    await settle_execs(one.engine, one.engine.nodes.get("local"))
    assert (await one.execs.InspectExec(exec_pb2.InspectExecRequest(exec=taken))).exec.running
    assert gate.gate is not None
    gate.gate.set()
    async for _ in call:
        pass
    assert (await one.execs.InspectExec(exec_pb2.InspectExecRequest(exec=taken))).exec.pid > 0


async def test_a_start_that_was_given_up_elsewhere_is_settled_by_who_follows(
    replicas: tuple[Api, Api], executor: FakeExecutor
) -> None:
    one, two = replicas
    taken = await _exec(two, await one.run())
    executor.fault("Exec", error=Unavailable("the connection broke"))
    executor.fault("ListContainers", error=Unavailable("the connection broke"))  # which leaves it to the other
    call = two.execs.StartExec(
        iter([exec_pb2.StartExecRequest(start=exec_pb2.ExecTarget(exec=taken, detach=True))]), timeout=PATIENCE
    )
    with capture_logs():
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in call:
                pass
        async with asyncio.timeout(PATIENCE):
            while executor.faults["ListContainers"]:
                await asyncio.sleep(0.01)
    await settle_execs(one.engine, one.engine.nodes.get("local"))
    assert not (await two.execs.InspectExec(exec_pb2.InspectExecRequest(exec=taken))).exec.HasField("started_at")


async def _exec(api: Api, container: str) -> str:
    request = exec_pb2.CreateExecRequest(container=container, config=exec_pb2.ExecConfig(cmd=["sh"]))
    return (await api.execs.CreateExec(request)).id


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[tuple[Api, Mapping[str, FakeExecutor]]]:
    """One node is ten minutes ahead, one behind; the service's own clock is set to and fro at every look."""
    looks = 0

    def clock() -> int:
        nonlocal looks
        looks += 1
        return ahead(SKEW if looks % 2 else -SKEW)

    async with AsyncExitStack() as stack:
        fakes = await stack.enter_async_context(serving_nodes(tmp_path, "a", "b"))
        for fake, skew in zip(fakes.values(), (SKEW, -SKEW), strict=True):
            fake.clock_ahead = skew
        api = await stack.enter_async_context(
            running_api(tmp_path, fakes["a"], configured=False, lease=TERMS, clock=clock)
        )
        await api.add_nodes(fakes)
        await api.load()
        yield api, fakes


async def test_placement_and_leases_know_no_time_of_day(nodes: tuple[Api, Mapping[str, FakeExecutor]]) -> None:
    api, fakes = nodes
    for index in range(4):
        await api.run(name=f"web{index}", reschedule="on_node_loss")
    homes = [(await api.inspect(f"web{index}")).node for index in range(4)]
    assert Counter(homes) == {"a": 2, "b": 2}
    async with asyncio.timeout(PATIENCE):
        while fakes["a"].leased_until < time.monotonic():
            await asyncio.sleep(0.02)
    await asyncio.sleep(TERMS.ttl + TERMS.margin)
    assert [(await api.node(name)).state for name in fakes] == [node_pb2.NODE_STATE_READY] * 2, "one was given up"
    await fakes["a"].down()
    await api.node_in("a", node_pb2.NODE_STATE_LOST)
    assert time.monotonic() > fakes["a"].leased_until
    moved = f"web{homes.index('a')}"
    async with asyncio.timeout(PATIENCE):
        while not (shown := await api.inspect(moved)).state.running or shown.node != "b":
            await asyncio.sleep(0.02)
