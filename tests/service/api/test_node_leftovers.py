"""A node comes back and cannot be rid of a container: no other waits for that, and nothing runs twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import pytest
from slipway.v1 import node_service_pb2 as node_pb2

from common.errors import Internal, SlipwayError, Unavailable
from tests.fixtures.api import PATIENCE, Api, refused
from tests.fixtures.fake_executor.containers import FakeContainer
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.node_leases import Clock, end_without_lease, stopped_after_an_unheard_restart
from tests.fixtures.two_nodes import MOVES, only, run_on, runs_on, until

READY, LOST = node_pb2.NODE_STATE_READY, node_pb2.NODE_STATE_LOST
BUSY = Internal("its files cannot be removed: Device or resource busy", reason="INTERNAL")
UNKILLABLE = Internal("its process 7 has not died 30 s after SIGKILL", reason="UNKILLABLE")


@pytest.fixture
def api(leasing: Api) -> Api:
    return leasing


@contextmanager
def failing(fake: FakeExecutor, method: str, error: SlipwayError) -> Iterator[None]:
    for _ in range(1000):
        fake.fault(method, error=error)
    yield
    fake.faults[method].clear()


async def left_a(api: Api, fake: FakeExecutor, clock: Clock, *names: str) -> list[FakeContainer]:
    """Containers that have left the node for the other one; it is away, and has them yet."""
    ids = [await run_on(api, "a", name, **MOVES) for name in names]
    await clock.lose(fake)
    for name in names:
        await until(partial(runs_on, api, name, "b"))
    return [fake.containers[each] for each in ids]


def being_removed(container: FakeContainer) -> None:
    container.running = False
    container.removing = True


def being_removed_before_its_restart(container: FakeContainer) -> None:
    being_removed(container)
    container.restarting = True


def ended(container: FakeContainer) -> None:
    container.running = False


def to_be_restarted(container: FakeContainer) -> None:
    container.running = False
    container.restarting = True


def unkillable(container: FakeContainer) -> None:
    container.removing = True


def unreadable(container: FakeContainer) -> None:
    being_removed(container)
    container.broken = "its record cannot be read"


@pytest.mark.parametrize("state", [being_removed, being_removed_before_its_restart])
async def test_what_cannot_be_removed_and_cannot_run_keeps_nothing_from_its_work(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock, state: Callable[[FakeContainer], None]
) -> None:
    """The next one is removed, the journal followed, the lease renewed; it is removed as soon as it can be."""
    fake = executors["a"]
    other = await run_on(api, "a", "other")
    for each in await left_a(api, fake, clock, "one", "two"):
        state(each)
    fake.exit(other, 3)
    fake.calls.clear()
    with failing(fake, "RemoveContainer", BUSY):
        await fake.up()
        await api.node_in("a", READY)
        await fake.until(lambda: "RenewLease" in fake.calls)
        await until(lambda: _has_ended(api, "other"))
        assert len(await api.engine.moves.departed("a")) == 2
        assert await runs_on(api, "one", "b")
    await until(lambda: _nothing_left(api))
    assert list(fake.containers) == [other]


async def test_what_cannot_be_removed_keeps_no_other_from_its_removal(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    fake = executors["a"]
    for each in await left_a(api, fake, clock, "one", "two"):
        being_removed(each)
    fake.fault("RemoveContainer", error=BUSY)
    fake.calls.clear()
    await fake.up()
    await fake.until(lambda: "FollowJournal" in fake.calls)
    assert fake.calls[: fake.calls.index("FollowJournal")].count("RemoveContainer") == 2
    assert len(fake.containers) == 1


@pytest.mark.parametrize("state", [ended, to_be_restarted, unkillable, unreadable])
async def test_a_node_on_which_may_run_what_runs_elsewhere_gets_no_lease(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock, state: Callable[[FakeContainer], None]
) -> None:
    """What has ended could be started, by a call that is late or after a reboot, unless its removal has begun."""
    fake = executors["a"]
    other = await run_on(api, "a", "other")
    [web] = await left_a(api, fake, clock, "web")
    state(web)
    fake.exit(other, 3)
    fake.calls.clear()
    with failing(fake, "RemoveContainer", UNKILLABLE):
        await fake.up()
        await until(lambda: _has_ended(api, "other"))
        await until(lambda: _is_lost_for(api, UNKILLABLE.message))
        why = await refused(api.nodes.RemoveNode(node_pb2.RemoveNodeRequest(node="a", force=True)))
        assert why.reason == "NODE_READY"
        await api.start("other")
        await fake.until(lambda: fake.calls.count("RemoveContainer") > 3)
        assert "RenewLease" not in fake.calls
        assert fake.calls.count("FollowJournal") == 1
        assert await runs_on(api, "web", "b")
    await fake.until(lambda: "RenewLease" in fake.calls)
    await api.node_in("a", READY)
    assert list(fake.containers) == [other]


async def test_what_may_run_elsewhere_leaves_a_node_that_answers_and_gets_no_lease(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    """One that found no room before goes when there is some, and is removed before the node gets its lease."""
    fake = executors["a"]
    waiting = await run_on(api, "a", "waiting", **MOVES)
    await run_on(api, "a", "stopped", **MOVES)
    await only(api, "a")
    await clock.lose(fake)
    await api.node_in("a", LOST)
    await api.stop("stopped")
    end_without_lease(fake, waiting)
    fake.calls.clear()
    with failing(fake, "StopContainer", UNKILLABLE):
        await fake.up()
        await until(lambda: _is_lost_for(api, UNKILLABLE.message))
        await only(api, "a", "b")
        await until(lambda: runs_on(api, "waiting", "b"))
        assert "RenewLease" not in fake.calls
    await fake.until(lambda: "RenewLease" in fake.calls)
    assert fake.calls.index("RemoveContainer") < fake.calls.index("RenewLease")
    assert waiting not in fake.containers


@pytest.mark.parametrize("runs", [False, True])
async def test_a_node_that_cannot_stop_what_was_stopped_gets_a_lease_when_that_does_not_run(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock, runs: bool
) -> None:
    fake = executors["a"]
    web = await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    await clock.lose(fake)
    await api.node_in("a", LOST)
    await api.stop("web")
    fake.containers[web].running = runs
    fake.calls.clear()
    with failing(fake, "StopContainer", UNKILLABLE):
        await fake.up()
        if runs:
            await fake.until(lambda: fake.calls.count("StopContainer") > 2)
            assert "RenewLease" not in fake.calls
            await until(lambda: _is_lost_for(api, UNKILLABLE.message))
        else:
            await fake.until(lambda: "RenewLease" in fake.calls)
            await api.node_in("a", READY)
    await fake.until(lambda: "RenewLease" in fake.calls)
    await api.node_in("a", READY)
    assert not fake.containers[web].running


async def test_what_cannot_be_stopped_stays_to_be_stopped_whatever_its_node_tells(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    """Its policy has started it again before the stop, and nobody has heard of that yet."""
    fake = executors["a"]
    web = await stopped_after_an_unheard_restart(api, fake, clock)
    fake.calls.clear()
    with failing(fake, "StopContainer", UNKILLABLE):
        await fake.up()
        await until(lambda: _is_lost_for(api, UNKILLABLE.message))
        assert await api.engine.nodes.get("a").follower.reached(len(fake.journal), patience=PATIENCE)
        tried = fake.calls.count("StopContainer")
        await fake.until(lambda: fake.calls.count("StopContainer") > tried + 1)
        assert "RenewLease" not in fake.calls
    await api.node_in("a", READY)
    assert not fake.containers[web].running
    assert (await api.engine.containers.find("web")).halted


async def test_a_node_that_answers_by_halves_stays_lost(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    fake = executors["a"]
    await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    await clock.lose(fake)
    await api.node_in("a", LOST)
    await api.stop("web")
    before = await api.actions(type=["node"])
    fake.calls.clear()
    with failing(fake, "StopContainer", Unavailable("its disk does not answer")):
        await fake.up()
        await fake.until(lambda: fake.calls.count("StopContainer") > 3)
        assert await api.actions(type=["node"]) == before
    await api.node_in("a", READY)


async def test_what_a_node_brings_along_and_cannot_be_removed_is_looked_at_again(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    fake = executors["a"]
    [web] = await left_a(api, fake, clock, "web")
    being_removed(web)
    address = (await api.node("a")).address
    await api.nodes.RemoveNode(node_pb2.RemoveNodeRequest(node="a"))
    fake.fault("RemoveContainer", error=BUSY)
    fake.calls.clear()
    await fake.up()
    await api.nodes.AddNode(node_pb2.AddNodeRequest(name="again", address=address))
    await api.node_in("again", READY)
    await fake.until(lambda: "RenewLease" in fake.calls)
    assert fake.containers
    await fake.down()
    await fake.up()
    await fake.until(lambda: not fake.containers)


async def _has_ended(api: Api, name: str) -> bool:
    return not (await api.inspect(name)).state.running


async def _is_lost_for(api: Api, why: str) -> bool:
    node = await api.node("a")
    return node.state == LOST and node.state_reason.startswith("it answers") and why in node.state_reason


async def _nothing_left(api: Api) -> bool:
    return not await api.engine.moves.departed("a")
