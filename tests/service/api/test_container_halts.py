"""A stop of what is to run and does not, or not for long, as its node is lost or left: it stays stopped."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from functools import partial

import grpc
import pytest
from slipway.executor.v1 import runtime_service_pb2 as executor_pb2
from slipway.v1 import node_service_pb2 as node_pb2

from api_service.operations import container_stop
from api_service.operations.container_move import move_container
from api_service.records.container_repository import Changed
from api_service.records.node import NodeState
from common.errors import Unavailable
from tests.fixtures.api import PATIENCE, Api, refused
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.node_leases import TERMS, Clock, end_without_lease, is_leased, stopped_after_an_unheard_restart
from tests.fixtures.two_nodes import MOVES, only, run_on, runs_on, until

READY, LOST = node_pb2.NODE_STATE_READY, node_pb2.NODE_STATE_LOST


@pytest.fixture
def api(leasing: Api) -> Api:
    return leasing


async def test_one_that_fits_nowhere_is_stopped_for_good(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    """Its node is lost, so it does not run. It goes nowhere when there is room, and does not run again when the node is
    back, which tells how it ended; its end is told once."""
    web = await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    await executors["a"].down()
    await api.node_in("a", LOST)
    assert (await api.stop("web")).already_stopped is False
    found = await api.inspect("web")
    assert (found.node, found.state.running, found.state.HasField("exit_code")) == ("a", False, False)
    assert "its node was lost" in found.state.error
    assert (await api.stop("web")).already_stopped is True
    await only(api, "a", "b")
    await asyncio.sleep(3 * TERMS.ttl / 10)
    assert not executors["b"].containers
    fake = executors["a"]
    end_without_lease(fake, web)
    await fake.up()
    await api.node_in("a", READY)
    await until(lambda: _ended_with(api, 137))
    await asyncio.sleep(3 * TERMS.ttl / 10)
    assert fake.calls.count("StartContainer") == 1
    ends = [action for action in await api.actions(container=["web"]) if action.split()[1] in ("die", "stop")]
    assert ends == ["container die", "container stop"]
    await api.start("web")
    assert await runs_on(api, "web", "a")


async def test_the_end_of_what_is_lost_is_told_once_though_it_is_to_run_again(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    """Stopped and asked to start while its node is lost, so it runs there when that is back."""
    web = await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    fake = executors["a"]
    await fake.down()
    await api.node_in("a", LOST)
    await api.stop("web")
    assert (await refused(api.start("web"))).code is grpc.StatusCode.UNAVAILABLE
    end_without_lease(fake, web)
    await fake.up()
    await until(lambda: runs_on(api, "web", "a"))
    told = [action for action in await api.actions(container=["web"]) if action.split()[1] in ("start", "die", "stop")]
    assert told == ["container start", "container die", "container stop", "container start"]


async def _ended_with(api: Api, exit_code: int) -> bool:
    return (await api.inspect("web")).state.exit_code == exit_code


async def test_what_its_node_has_killed_is_stopped_before_it_runs_again(
    api: Api, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.node_composition.revive", lambda engine, node, record: None)
    web = await run_on(api, "a", "web", **MOVES)
    end_without_lease(executors["a"], web)
    await until(lambda: _ended_with(api, 137))
    assert (await api.stop("web")).already_stopped is False
    assert (await api.stop("web")).already_stopped is True
    assert await move_container(api.engine, web) is None
    assert (await api.inspect("web")).state.exit_code == 137


async def test_what_is_stopped_while_it_waits_to_run_again_does_not(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    fake = executors["a"]
    await only(api, "a")
    before_it = [await api.run(**MOVES) for _ in range(16)]
    web = await api.run(name="web", **MOVES)
    gate = asyncio.Event()
    for _ in before_it:
        fake.fault("StartContainer", gate=gate)
    before = fake.calls.count("StartContainer")
    for each in before_it:
        end_without_lease(fake, each)
    await fake.until(lambda: fake.calls.count("StartContainer") - before == len(before_it))
    end_without_lease(fake, web)
    assert await api.engine.nodes.get("a").follower.reached(len(fake.journal), patience=PATIENCE)
    assert (await api.stop("web")).already_stopped is False
    gate.set()
    await fake.until(lambda: all(fake.containers[each].running for each in before_it))
    await asyncio.sleep(0.3)
    assert not fake.containers[web].running
    await api.start("web")
    assert await runs_on(api, "web", "a")


async def test_a_stop_of_what_is_lost_is_told_to_its_node_before_that_gets_a_lease(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    """Which restarts by its policies what was running when its machine went down."""
    fake = executors["a"]
    web = await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    await fake.down()
    await api.node_in("a", LOST)
    assert (await api.stop("web")).already_stopped is False
    container = fake.containers[web]
    container.running = False
    fake.calls.clear()
    await fake.up()
    await until(lambda: is_leased(fake))
    assert "RenewLease" not in fake.calls[: fake.calls.index("StopContainer")]
    container.running = True
    fake.append(container, started=executor_pb2.Started(start_id="policy", pid=77))
    await until(lambda: runs_on(api, "web", "a"))
    assert not (await api.engine.containers.find("web")).halted


@pytest.mark.parametrize("known", [True, False], ids=["as known here", "not yet known here"])
async def test_what_its_node_may_start_again_is_not_said_to_be_stopped(
    api: Api, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """The node has its lease again, and its policies may start what ran there, while its journal is not followed yet
    and a service has no connection of its own."""
    fake, back = executors["a"], asyncio.Event()
    web = await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    await fake.down()
    await api.node_in("a", LOST)
    if not known:
        monkeypatch.setattr(container_stop, "is_lost", lambda engine, record: True)
    fake.fault("FollowJournal", gate=back)
    fake.fault("StopContainer", error=Unavailable("there is no connection yet"))
    container = fake.containers[web]
    container.running = False
    await fake.up()
    await until(lambda: is_leased(fake))
    assert (await api.node("a")).state == node_pb2.NODE_STATE_UNREACHABLE
    assert (await refused(api.stop("web"))).code is grpc.StatusCode.UNAVAILABLE
    assert not (await api.engine.containers.find("web")).halted
    container.running = True
    fake.append(container, started=executor_pb2.Started(start_id="policy", pid=77))
    back.set()
    await until(lambda: _runs_by(api, "policy"))
    assert (await api.stop("web")).already_stopped is False
    assert not container.running


async def _runs_by(api: Api, start_id: str) -> bool:
    state = (await api.engine.containers.find("web")).state
    return state.running and state.start_id == start_id


async def test_what_its_node_had_started_before_the_stop_is_no_start_anew(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    """It ran again by its policy, unheard of, and was killed as the lease was over; both is told after the stop."""
    fake = executors["a"]
    web = await stopped_after_an_unheard_restart(api, fake, clock)
    end_without_lease(fake, web)
    fake.calls.clear()
    await fake.up()
    await until(lambda: _ended_with(api, 137))
    await asyncio.sleep(3 * TERMS.ttl / 10)
    assert "StartContainer" not in fake.calls
    assert (await api.engine.containers.find("web")).halted
    await api.start("web")
    assert await runs_on(api, "web", "a")
    assert not (await api.engine.containers.find("web")).halted


async def test_what_may_run_again_since_its_node_came_back_is_not_said_to_be_stopped(
    api: Api, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node was lost when the stop began, and is not any more when the stop fails."""
    monkeypatch.setattr(container_stop, "_LOST_TIME", PATIENCE)
    fake, back, answered = executors["a"], asyncio.Event(), asyncio.Event()
    await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    await fake.down()
    await api.node_in("a", LOST)
    following = fake.fault("FollowJournal", gate=back)
    stopping = fake.fault("StopContainer", gate=answered, error=Unavailable("the connection broke"))
    await fake.up()
    async with asyncio.timeout(PATIENCE):
        await following.reached.wait()
        stop = asyncio.create_task(refused(api.stop("web")))
        await stopping.reached.wait()
        back.set()
        await until(lambda: _is_ready(api))
        answered.set()
        assert (await stop).code is grpc.StatusCode.UNAVAILABLE
    assert await runs_on(api, "web", "a")
    assert not (await api.engine.containers.find("web")).halted


async def _is_ready(api: Api) -> bool:
    """As the service knows it."""
    return api.engine.nodes.get("a").record.status.state is NodeState.READY


@pytest.mark.parametrize("ended", [False, True], ids=["runs yet", "ended"])
async def test_what_is_stopped_before_it_leaves_a_drained_node_is_not_on_its_way(
    api: Api, executors: Mapping[str, FakeExecutor], ended: bool
) -> None:
    web = await run_on(api, "a", "web", **MOVES)
    await only(api, "a")  # so the other one has no room
    await api.nodes.UpdateNode(node_pb2.UpdateNodeRequest(node="a", availability=node_pb2.NODE_AVAILABILITY_DRAINED))
    stored = await api.engine.containers.get(web)
    assert stored is not None
    marked = Changed(record=dataclasses.replace(stored.record, moving=True))
    assert await api.engine.containers.replace(stored, marked, api.engine.moves.begin(web))
    if ended:
        executors["a"].exit(web, 3)
        await until(lambda: _ended_with(api, 3))
    assert (await api.stop("web")).already_stopped is False
    await until(lambda: _nothing_moves(api))
    record = await api.engine.containers.find("web")
    assert (record.node, record.moving, record.state.running) == ("a", False, False)
    await api.start("web")
    assert await runs_on(api, "web", "a")


async def _nothing_moves(api: Api) -> bool:
    return not await api.engine.moves.under_way()


async def test_what_was_stopped_and_is_started_while_its_node_comes_back_runs_on(
    api: Api, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is in force all the time, so a client may start it while another's stop is told to the node. What the
    node knows is not told again."""
    monkeypatch.setattr("api_service.node_composition.revive", lambda engine, node, record: None)
    monkeypatch.setattr("api_service.operations.node_sweep.revive", lambda engine, node, record: None)
    fake = executors["a"]
    ids = {name: await run_on(api, "a", name, **MOVES) for name in ("one", "two")}
    for name, container_id in ids.items():
        end_without_lease(fake, container_id)
        await until(partial(_lease_is_over, api, name))
        assert (await api.stop(name)).already_stopped is False
    gate = asyncio.Event()
    telling = fake.fault("StopContainer", gate=gate)
    await fake.down()
    await fake.up()
    async with asyncio.timeout(PATIENCE):
        await telling.reached.wait()
    last = [record.name for record in await api.engine.containers.on_node("a")][-1]
    await api.start(last)
    following = fake.calls.count("FollowJournal")
    gate.set()
    await fake.until(lambda: fake.calls.count("FollowJournal") > following)
    assert fake.containers[ids[last]].running
    assert await runs_on(api, last, "a")
    assert fake.calls.count("StopContainer") == 1
    await fake.down()
    fake.calls.clear()
    await fake.up()
    await fake.until(lambda: "FollowJournal" in fake.calls)
    assert "StopContainer" not in fake.calls


async def _lease_is_over(api: Api, name: str) -> bool:
    return (await api.engine.containers.find(name)).state.lease_over
