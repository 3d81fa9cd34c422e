"""Losing a node: what is marked runs again elsewhere, never before its lease is over; everything else waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from slipway.v1 import container_pb2
from slipway.v1 import node_service_pb2 as node_pb2
from slipway.v1 import volume_service_pb2 as volume_pb2

from api_service.nodes.lease import LeaseTerms
from common.errors import Unavailable
from tests.fixtures.api import PATIENCE, Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.node_leases import TERMS, Clock, end_without_lease, is_leased
from tests.fixtures.shared_store import SharedStore
from tests.fixtures.two_nodes import MOVES, only, run_on, runs_on, until

READY, LOST = node_pb2.NODE_STATE_READY, node_pb2.NODE_STATE_LOST


@pytest.fixture
def api(leasing: Api) -> Api:
    return leasing


async def test_a_marked_container_runs_again_elsewhere_and_others_wait(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    web = await run_on(api, "a", "web", **MOVES)
    stays = await run_on(api, "a", "stays")
    assert executors["a"].containers[web].spec.leased
    assert not executors["a"].containers[stays].spec.leased
    await until(lambda: is_leased(executors["a"]))
    await executors["a"].down()
    lost = await api.node_in("a", LOST)
    assert time.monotonic() > executors["a"].leased_until
    assert "lease is over" in lost.state_reason
    await until(lambda: runs_on(api, "web", "b"))
    assert executors["b"].containers[web].running
    assert (await api.inspect("stays")).node == "a"
    # What was left there is removed before anything is heard of the node, and before it gets a lease again.
    executors["a"].calls.clear()
    await executors["a"].up()
    await api.node_in("a", READY)
    assert web not in executors["a"].containers
    assert executors["a"].containers[stays].running
    calls = executors["a"].calls
    assert calls.index("RemoveContainer") < calls.index("FollowJournal")
    assert "RenewLease" not in calls[: calls.index("RemoveContainer")]
    assert (await api.inspect("web")).node == "b"
    moves = [each.event for each in await api.events(1, type=["container"], action=["move"])]
    assert dict(moves[0].attributes)["node.new"] == "b"


async def test_what_the_old_node_says_later_changes_nothing(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    web = await run_on(api, "a", "web", **MOVES)
    await clock.lose(executors["a"])
    await api.node_in("a", LOST)
    await until(lambda: runs_on(api, "web", "b"))
    executors["a"].exit(web, 137)
    await executors["a"].up()
    await api.node_in("a", READY)
    follower = api.engine.nodes.get("a").follower
    assert await follower.reached(len(executors["a"].journal), patience=PATIENCE)
    assert await runs_on(api, "web", "b")
    assert (await api.stop("web")).already_stopped is False


async def test_a_short_absence_moves_nothing(api: Api, executors: Mapping[str, FakeExecutor], clock: Clock) -> None:
    await run_on(api, "a", "web", **MOVES)
    await executors["a"].down()
    await api.node_in("a", node_pb2.NODE_STATE_UNREACHABLE)
    await executors["a"].up()
    await api.node_in("a", READY)
    clock.ahead += TERMS.term()
    before = executors["a"].leased_until
    await executors["a"].until(lambda: executors["a"].leased_until > before)
    assert await runs_on(api, "web", "a")
    assert not executors["b"].containers


async def test_a_container_with_a_volume_of_the_node_waits_for_it(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    await api.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="data", node="a"))
    await api.run(name="db", binds=["data:/data"], **MOVES)
    await clock.lose(executors["a"])
    await api.node_in("a", LOST)
    await asyncio.sleep(0.5)
    assert (await api.inspect("db")).node == "a"
    assert not executors["b"].containers


async def test_one_that_fits_nowhere_goes_when_there_is_room(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    await clock.lose(executors["a"])
    await api.node_in("a", LOST)
    await asyncio.sleep(0.3)
    assert (await api.inspect("web")).node == "a"
    await only(api, "b")
    await until(lambda: runs_on(api, "web", "b"))


async def test_a_move_that_is_cut_off_is_finished(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    await run_on(api, "a", "web", **MOVES)
    executors["b"].fault("CreateContainer", error=Unavailable("the connection broke"))
    executors["b"].fault("StartContainer", error=Unavailable("the connection broke"))
    executors["b"].fault("StartContainer", error=Unavailable("the connection broke"))
    await clock.lose(executors["a"])
    await until(lambda: runs_on(api, "web", "b"))
    await until(lambda: _settled(api))


async def _settled(api: Api) -> bool:
    return not await api.engine.moves.under_way()


async def test_reservations_move_along(api: Api, executors: Mapping[str, FakeExecutor], clock: Clock) -> None:
    await run_on(api, "a", "web", placement=container_pb2.Placement(reserve_memory=1 << 30), **MOVES)
    await clock.lose(executors["a"])
    await until(lambda: runs_on(api, "web", "b"))
    assert [(await api.node(name)).usage.reserved.memory for name in ("a", "b")] == [0, 1 << 30]


async def test_a_drained_node_is_left_by_what_is_marked(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    web = await run_on(api, "a", "web", **MOVES)
    await run_on(api, "a", "stays")
    await api.nodes.UpdateNode(node_pb2.UpdateNodeRequest(node="a", availability=node_pb2.NODE_AVAILABILITY_DRAINED))
    await until(lambda: runs_on(api, "web", "b"))
    await until(lambda: _gone(executors["a"], web))
    assert await runs_on(api, "stays", "a")
    assert "StopContainer" in executors["a"].calls


async def _gone(fake: FakeExecutor, container_id: str) -> bool:
    return container_id not in fake.containers


async def test_a_drained_node_keeps_what_fits_nowhere_running(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    await api.nodes.UpdateNode(node_pb2.UpdateNodeRequest(node="a", availability=node_pb2.NODE_AVAILABILITY_DRAINED))
    await asyncio.sleep(0.5)
    assert await runs_on(api, "web", "a")
    assert "StopContainer" not in executors["a"].calls


async def test_what_its_node_killed_runs_again_there(api: Api, executors: Mapping[str, FakeExecutor]) -> None:
    web = await run_on(api, "a", "web", **MOVES)
    start_id = end_without_lease(executors["a"], web)
    await until(lambda: _again(api, start_id))


async def test_many_that_a_node_has_killed_run_again_a_few_at_a_time(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    fake = executors["a"]
    await only(api, "a")
    made = [await api.run(**MOVES) for _ in range(20)]
    gate = asyncio.Event()
    for _ in made:
        fake.fault("StartContainer", gate=gate)
    before = fake.calls.count("StartContainer")
    for each in made:
        end_without_lease(fake, each)
    await fake.until(lambda: fake.calls.count("StartContainer") - before == 16)
    await asyncio.sleep(0.3)
    assert fake.calls.count("StartContainer") - before == 16
    gate.set()
    await fake.until(lambda: all(fake.containers[each].running for each in made))


async def _again(api: Api, start_id: str) -> bool:
    record = await api.engine.containers.find("web")
    return record.state.running and record.state.start_id != start_id


@pytest.mark.parametrize("before", [LeaseTerms(ttl=3.0, margin=1.0), LeaseTerms(ttl=9.0)], ids=["same", "longer"])
async def test_a_new_holder_waits_a_whole_lease(
    shared: SharedStore, executors: Mapping[str, FakeExecutor], before: LeaseTerms
) -> None:
    """The one before it may have renewed at the last moment, and have other settings."""
    terms = LeaseTerms(ttl=3.0, margin=1.0)
    one = await shared.join("one", executors["a"], configured=False, lease=before)
    await one.add_nodes(executors)
    await one.load()
    await run_on(one, "a", "web", **MOVES)
    two = await shared.join("two", executors["a"], configured=False, lease=terms)
    await executors["a"].down()
    left = time.monotonic()  # a word of what was left then would be for a shorter time
    await shared.leave("one")
    await two.node_in("a", LOST)
    assert time.monotonic() - left > terms.term()
    assert time.monotonic() > executors["a"].leased_until
    await until(lambda: runs_on(two, "web", "b"))


async def test_the_node_of_the_settings_gets_its_lease(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> None:
    """It is introduced without being asked for anything, so in no time at all."""
    async with running_api(tmp_path, executors["a"], lease=TERMS):
        async with asyncio.timeout(PATIENCE):
            await executors["a"].until(lambda: executors["a"].leased_until > time.monotonic())


async def test_it_cannot_remove_itself_and_go_on_elsewhere(api: Api) -> None:
    why = await refused(api.create(auto_remove=True, **MOVES))
    assert list(why.violations) == ["host_config.reschedule"]
    assert (await refused(api.create(reschedule="always"))).violations
