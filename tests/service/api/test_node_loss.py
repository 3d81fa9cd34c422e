"""Losing a node: what is marked runs again elsewhere, never before its lease is over; everything else waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from slipway.executor.v1 import runtime_service_pb2 as executor_pb2
from slipway.v1 import container_pb2
from slipway.v1 import node_service_pb2 as node_pb2
from slipway.v1 import volume_service_pb2 as volume_pb2

from api_service.nodes.lease import LeaseTerms
from api_service.operations.container_move import move_container
from api_service.records.exec_repository import ExecRepository
from api_service.store.claims import LocalClaims
from api_service.store.memory_store import MemoryStore
from api_service.store.store import Put
from common.errors import Unavailable
from tests.fixtures.api import PATIENCE, Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.two_nodes import MOVES, only, run_on, runs_on, until

READY, LOST = node_pb2.NODE_STATE_READY, node_pb2.NODE_STATE_LOST
TERMS = LeaseTerms(ttl=6.0, margin=1.0)


class Clock:
    """By which services know when a lease is over. Put forward, it spares the waiting for that: a lease short enough to
    be waited for is lost by a machine that is busy."""

    def __init__(self) -> None:
        self.ahead = 0.0  # seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    async def lose(self, fake: FakeExecutor) -> None:
        await fake.down()
        self.ahead += TERMS.term


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("api_service.nodes.lease.time", clock)
    return clock


@pytest.fixture
async def api(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> AsyncIterator[Api]:
    async with running_api(tmp_path, executors["a"], configured=False, lease=TERMS) as api:
        await api.add_nodes(executors)
        await api.load()
        yield api


async def test_a_marked_container_runs_again_elsewhere_and_others_wait(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    web = await run_on(api, "a", "web", **MOVES)
    stays = await run_on(api, "a", "stays")
    assert executors["a"].containers[web].spec.leased
    assert not executors["a"].containers[stays].spec.leased
    await until(lambda: _leased(executors["a"]))
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


async def _leased(fake: FakeExecutor) -> bool:
    return fake.leased_until > time.monotonic()


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
    clock.ahead += TERMS.term
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
    fake = executors["a"]
    container = fake.containers[web]
    container.running = False
    assert container.started is not None
    start_id = container.started.started.start_id
    fake.append(container, exited=executor_pb2.Exited(start_id=start_id, exit_code=137, lease_over=True))
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
        container = fake.containers[each]
        container.running = False
        assert container.started is not None
        ended = executor_pb2.Exited(start_id=container.started.started.start_id, exit_code=137, lease_over=True)
        fake.append(container, exited=ended)
    await fake.until(lambda: fake.calls.count("StartContainer") - before == 16)
    await asyncio.sleep(0.3)
    assert fake.calls.count("StartContainer") - before == 16
    gate.set()
    await fake.until(lambda: all(fake.containers[each].running for each in made))


async def _again(api: Api, start_id: str) -> bool:
    record = await api.engine.containers.find("web")
    return record.state.running and record.state.start_id != start_id


async def test_a_new_holder_waits_a_whole_lease(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> None:
    """The one before it may have renewed at the last moment."""
    terms = LeaseTerms(ttl=3.0, margin=1.0)
    async with MemoryStore() as store, AsyncExitStack() as stack:
        claims = LocalClaims()
        for name in ("1", "2"):
            (tmp_path / name).mkdir()
        first = AsyncExitStack()
        one = await first.enter_async_context(
            running_api(tmp_path / "1", executors["a"], configured=False, store=(store, claims), lease=terms)
        )
        await one.add_nodes(executors)
        await one.load()
        await run_on(one, "a", "web", **MOVES)
        two = await stack.enter_async_context(
            running_api(
                tmp_path / "2",
                executors["a"],
                configured=False,
                store=(store, LocalClaims(beside=claims)),
                lease=terms,
            )
        )
        await executors["a"].down()
        left = time.monotonic()  # a word of what was left then would be for a shorter time
        await first.aclose()
        await two.node_in("a", LOST)
        assert time.monotonic() - left > terms.term
        await until(lambda: runs_on(two, "web", "b"))


async def test_the_node_of_the_settings_gets_its_lease(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> None:
    """It is introduced without being asked for anything, so in no time at all."""
    async with running_api(tmp_path, executors["a"], lease=TERMS):
        async with asyncio.timeout(PATIENCE):
            await executors["a"].until(lambda: executors["a"].leased_until > time.monotonic())


async def test_what_leaves_a_node_that_is_being_forgotten_is_not_forgotten(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = await run_on(api, "a", "web", **MOVES)
    await only(api, "a")
    await clock.lose(executors["a"])
    await api.node_in("a", LOST)
    forget, gone = ExecRepository.forget, asyncio.Event()

    async def leave_first(execs: ExecRepository, container_id: str) -> None:
        await forget(execs, container_id)
        await only(api, "b")
        await until(lambda: _is_on(api, "b"))
        gone.set()

    monkeypatch.setattr(ExecRepository, "forget", leave_first)
    await api.nodes.RemoveNode(node_pb2.RemoveNodeRequest(node="a", force=True))
    assert gone.is_set()
    await until(lambda: runs_on(api, "web", "b"))
    assert executors["b"].containers[web].running


async def test_a_move_is_finished_also_when_only_one_node_is_left(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    await run_on(api, "a", "web", **MOVES)
    for _ in range(1000):
        executors["b"].fault("CreateContainer", error=Unavailable("the connection broke"))
    await clock.lose(executors["a"])
    await until(lambda: _is_on(api, "b"))
    await api.nodes.RemoveNode(node_pb2.RemoveNodeRequest(node="a", force=True))
    assert not await runs_on(api, "web", "b")
    executors["b"].faults["CreateContainer"].clear()
    await until(lambda: runs_on(api, "web", "b"))


async def _is_on(api: Api, node: str) -> bool:
    return (await api.inspect("web")).node == node


async def test_it_cannot_remove_itself_and_go_on_elsewhere(api: Api) -> None:
    why = await refused(api.create(auto_remove=True, **MOVES))
    assert list(why.violations) == ["host_config.reschedule"]
    assert (await refused(api.create(reschedule="always"))).violations


async def test_a_lost_node_that_is_forgotten_leaves_no_word_of_what_left_it(
    api: Api, executors: Mapping[str, FakeExecutor], clock: Clock
) -> None:
    await run_on(api, "a", "web", **MOVES)
    await run_on(api, "a", "stays")
    await clock.lose(executors["a"])
    await until(lambda: runs_on(api, "web", "b"))
    assert len(await api.engine.moves.departed("a")) == 1
    request = node_pb2.RemoveNodeRequest(node="a", force=True)
    assert list((await api.nodes.RemoveNode(request)).containers) == ["stays"]
    assert await api.engine.moves.departed("a") == []
    assert await runs_on(api, "web", "b")


async def test_a_node_that_is_taken_in_again_gets_no_lease_for_what_had_left_it(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    """Nothing is on record of the node any more when it is forgotten, and its own policy would start the container."""
    a = executors["a"]
    web = await run_on(api, "a", "web", **MOVES)
    await a.down()
    await until(lambda: runs_on(api, "web", "b"))
    address = (await api.node("a")).address
    await api.nodes.RemoveNode(node_pb2.RemoveNodeRequest(node="a"))
    await a.up()
    a.calls.clear()
    await api.nodes.AddNode(node_pb2.AddNodeRequest(name="again", address=address))
    await api.node_in("again", READY)
    await until(lambda: _leased(a))
    assert web not in a.containers
    assert "RenewLease" not in a.calls[: a.calls.index("RemoveContainer")]
    assert await runs_on(api, "web", "b")


async def test_a_record_that_cannot_be_read_keeps_no_node_from_being_taken_in(
    api: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    web = await run_on(api, "a", "web")
    address = (await api.node("a")).address
    await api.engine.containers._store.commit(Put(key=f"containers/{web}", value=b"{}"))
    await api.nodes.RemoveNode(node_pb2.RemoveNodeRequest(node="a"))
    await api.nodes.AddNode(node_pb2.AddNodeRequest(name="again", address=address))
    await api.node_in("again", READY)
    assert executors["a"].containers[web].running


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
    fake, container = executors["a"], executors["a"].containers[web]
    assert container.started is not None
    container.running = False
    start_id = container.started.started.start_id
    fake.append(container, exited=executor_pb2.Exited(start_id=start_id, exit_code=137, lease_over=True))
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
    fake, container = executors["a"], executors["a"].containers[web]
    await fake.down()
    await api.node_in("a", LOST)
    await api.stop("web")
    assert (await refused(api.start("web"))).code is grpc.StatusCode.UNAVAILABLE
    assert container.started is not None
    container.running = False
    start_id = container.started.started.start_id
    fake.append(container, exited=executor_pb2.Exited(start_id=start_id, exit_code=137, lease_over=True))
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
    fake, container = executors["a"], executors["a"].containers[web]
    assert container.started is not None
    container.running = False
    start_id = container.started.started.start_id
    fake.append(container, exited=executor_pb2.Exited(start_id=start_id, exit_code=137, lease_over=True))
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
    for each in (*before_it, web):
        container = fake.containers[each]
        container.running = False
        assert container.started is not None
        ended = executor_pb2.Exited(start_id=container.started.started.start_id, exit_code=137, lease_over=True)
        fake.append(container, exited=ended)
    await fake.until(lambda: fake.calls.count("StartContainer") - before == len(before_it))
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
    await until(lambda: _leased(fake))
    assert "RenewLease" not in fake.calls[: fake.calls.index("StopContainer")]
    container.running = True
    fake.append(container, started=executor_pb2.Started(start_id="policy", pid=77))
    await until(lambda: runs_on(api, "web", "a"))
    assert not (await api.engine.containers.find("web")).halted
