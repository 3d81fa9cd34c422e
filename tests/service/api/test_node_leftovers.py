"""A node comes back and cannot be rid of a container: no other waits for that, and nothing runs twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import pytest
from slipway.v1 import node_service_pb2 as node_pb2

from common.errors import Internal
from tests.fixtures.api import Api
from tests.fixtures.fake_executor.containers import FakeContainer
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.node_leases import Clock, is_leased
from tests.fixtures.two_nodes import MOVES, only, run_on, runs_on, until

READY, LOST = node_pb2.NODE_STATE_READY, node_pb2.NODE_STATE_LOST
BUSY = Internal("its files cannot be removed: Device or resource busy", reason="INTERNAL")
UNKILLABLE = Internal("its process 7 has not died 30 s after SIGKILL", reason="UNKILLABLE")


@pytest.fixture
def api(leasing: Api) -> Api:
    return leasing


@contextmanager
def failing(fake: FakeExecutor, method: str, error: Internal) -> Iterator[None]:
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
    with failing(fake, "RemoveContainer", BUSY):
        await fake.up()
        await api.node_in("a", READY)
        await until(lambda: is_leased(fake))
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
    [web] = await left_a(api, fake, clock, "web")
    state(web)
    fake.calls.clear()
    with failing(fake, "RemoveContainer", UNKILLABLE):
        await fake.up()
        await fake.until(lambda: fake.calls.count("RemoveContainer") > 2)
        assert "RenewLease" not in fake.calls
        assert (await api.node("a")).state != READY
        assert await runs_on(api, "web", "b")
    await until(lambda: is_leased(fake))
    await api.node_in("a", READY)
    assert not fake.containers


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
            assert (await api.node("a")).state != READY
        else:
            await until(lambda: is_leased(fake))
            await api.node_in("a", READY)
    await until(lambda: is_leased(fake))
    await api.node_in("a", READY)
    assert not fake.containers[web].running


async def test_what_a_node_brings_along_and_cannot_be_removed_is_looked_at_again(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    fake = executors["a"]
    [web] = await left_a(api, fake, clock, "web")
    being_removed(web)
    address = (await api.node("a")).address
    await api.nodes.RemoveNode(node_pb2.RemoveNodeRequest(node="a"))
    fake.fault("RemoveContainer", error=BUSY)
    await fake.up()
    await api.nodes.AddNode(node_pb2.AddNodeRequest(name="again", address=address))
    await api.node_in("again", READY)
    await until(lambda: is_leased(fake))
    assert fake.containers
    await fake.down()
    await fake.up()
    await fake.until(lambda: not fake.containers)


async def _has_ended(api: Api, name: str) -> bool:
    return not (await api.inspect(name)).state.running


async def _nothing_left(api: Api) -> bool:
    return not await api.engine.moves.departed("a")
