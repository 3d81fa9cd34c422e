"""A container on its way from one node to another: what may be done with it, and what it leaves."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import pytest
from slipway.v1 import container_service_pb2, mount_pb2
from slipway.v1 import node_service_pb2 as node_pb2

from api_service.deadline import Deadline
from api_service.executor_client.node import NodeFacts
from api_service.nodes.lease import LeaseTerms
from api_service.operations.container_departure import remove_departed
from api_service.operations.container_move import finish_move, move_container
from api_service.operations.engine import Engine
from api_service.operations.node_leftovers import Leftovers
from api_service.records.container_repository import Changed
from tests.fixtures.api import PATIENCE, Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.two_nodes import MOVES, run_on, runs_on


@pytest.fixture
async def unhurried(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> AsyncIterator[Api]:
    """Nothing is moved, nor finished, but by the test."""
    async with running_api(tmp_path, executors["a"], configured=False, lease=LeaseTerms(ttl=3600)) as api:
        await api.add_nodes(executors)
        await api.load()
        yield api


async def test_what_comes_back_is_not_taken_for_what_it_left(
    unhurried: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    api, engine, a = unhurried, unhurried.engine, executors["a"]
    web = await run_on(api, "a", "web", **MOVES)
    await move_container(engine, web)
    await finish_move(engine, web)
    assert await runs_on(api, "web", "b")
    gate = asyncio.Event()
    reached = a.fault("RemoveContainer", gate=gate).reached
    removing = asyncio.create_task(_remove_departed(engine))
    await reached.wait()
    await move_container(engine, web)
    coming = asyncio.create_task(finish_move(engine, web))
    await asyncio.wait([coming], timeout=0.5)
    gate.set()
    await asyncio.wait_for(asyncio.gather(removing, coming), PATIENCE)
    assert await runs_on(api, "web", "a")
    assert a.containers[web].running
    assert await engine.moves.departed("a") == []


async def _remove_departed(engine: Engine) -> None:
    node = engine.nodes.get("a")
    await remove_departed(engine, node, Leftovers(node))


async def test_what_it_left_is_gone_before_it_is_made_anew(
    unhurried: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    """Its anonymous volume is another one than before."""
    api, engine = unhurried, unhurried.engine
    web = await run_on(api, "a", "web", mounts=[mount_pb2.Mount(type="volume", target="/data")], **MOVES)
    before = executors["a"].containers[web]
    for _ in range(2):
        await move_container(engine, web)
        await finish_move(engine, web)
    assert await runs_on(api, "web", "a")
    assert executors["a"].containers[web].running
    assert executors["a"].containers[web].spec.mounts != before.spec.mounts
    assert await engine.moves.departed("a") == []
    await _remove_departed(engine)
    assert executors["a"].containers[web].running


async def test_a_later_departure_stays_on_record(unhurried: Api) -> None:
    moves, store = unhurried.engine.moves, unhurried.engine.moves._store
    web = "c" * 64
    await store.commit(*moves.leave(web, "a"))
    first = await moves.departure("a", web)
    assert first is not None
    await store.commit(*moves.leave(web, "a"))
    await moves.removed(first)
    assert await moves.departed("a") == [web]


async def test_a_later_move_stays_on_record(unhurried: Api) -> None:
    moves, store = unhurried.engine.moves, unhurried.engine.moves._store
    web = "c" * 64
    await store.commit(*moves.begin(web))
    first = await moves.move(web)
    assert first is not None
    await store.commit(*moves.begin(web))
    await moves.arrived(first)
    assert await moves.under_way() == [web]
    last = await moves.move(web)
    assert last is not None
    await moves.arrived(last)
    assert (await moves.under_way(), await moves.move(web)) == ([], None)


async def test_who_is_on_the_way_is_not_started(unhurried: Api) -> None:
    api, engine = unhurried, unhurried.engine
    web = await run_on(api, "a", "web", **MOVES)
    await move_container(engine, web)
    restart = api.containers.RestartContainer(container_service_pb2.RestartContainerRequest(container="web"))
    for call in (api.start("web"), restart):
        why = await refused(call)
        assert (why.code, why.reason) == (grpc.StatusCode.UNAVAILABLE, "CONTAINER_MOVING")
        assert why.retry_after == 1.0
    await finish_move(engine, web)
    assert (await api.stop("web")).already_stopped is False


async def test_who_is_stopped_on_the_way_arrives_and_does_not_run(
    unhurried: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    api, engine = unhurried, unhurried.engine
    web = await run_on(api, "a", "web", **MOVES)
    await move_container(engine, web)
    assert (await api.stop("web")).already_stopped is False
    assert (await api.stop("web")).already_stopped is True
    assert await move_container(engine, web) is None
    await finish_move(engine, web)
    assert executors["b"].containers[web].started is None
    assert not (await api.inspect("web")).state.running
    await api.start("web")
    assert await runs_on(api, "web", "b")
    assert await move_container(engine, web) is not None, "it is to run again, so it may go on"


@pytest.mark.parametrize("verb", ["start", "restart"])
async def test_who_is_started_on_the_way_runs_where_it_arrives(unhurried: Api, verb: str) -> None:
    """After a stop, which is not to last."""
    api, engine = unhurried, unhurried.engine
    web = await run_on(api, "a", "web", **MOVES)
    await move_container(engine, web)
    await api.stop("web")
    restart = container_service_pb2.RestartContainerRequest(container="web")
    again = api.start("web") if verb == "start" else api.containers.RestartContainer(restart)
    assert (await refused(again)).reason == "CONTAINER_MOVING"
    await finish_move(engine, web)
    assert await runs_on(api, "web", "b")


async def test_who_is_stopped_before_it_leaves_stays(unhurried: Api) -> None:
    """It is on record that it goes, as its node is drained, and it runs yet."""
    api, engine = unhurried, unhurried.engine
    web = await run_on(api, "a", "web", **MOVES)
    await engine.containers.update(web, lambda found: Changed(record=dataclasses.replace(found, moving=True)))
    assert (await api.stop("web")).already_stopped is False
    assert await move_container(engine, web) is None
    await finish_move(engine, web)
    found = await api.inspect("web")
    assert (found.node, found.state.running) == ("a", False)


async def test_who_leaves_while_it_is_being_removed_leaves_nothing_of_where_it_goes(
    unhurried: Api, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node is drained, so it was stopped; the removal has just been told that the node is there."""
    api, engine = unhurried, unhurried.engine
    web = await run_on(api, "a", "web", mounts=[mount_pb2.Mount(type="volume", target="/data")], **MOVES)
    await engine.containers.update(web, lambda found: Changed(record=dataclasses.replace(found, moving=True)))
    executors["a"].exit(web, 3)
    await api.wait("web")
    (before,) = (await engine.containers.find(web)).mount_points
    executor = engine.nodes.get("a").executor
    facts, moved = executor.facts, False

    async def leave(*, deadline: Deadline) -> NodeFacts:
        nonlocal moved
        if not moved:
            moved = await move_container(engine, web) is not None
        return await facts(deadline=deadline)

    monkeypatch.setattr(executor, "facts", leave)
    await api.remove("web", volumes=True)
    assert moved
    assert {volume.name for volume in await engine.volumes.all()} == {before.source}, "what stays behind is known"
    await finish_move(engine, web)
    await _remove_departed(engine)
    assert not executors["a"].containers and not executors["b"].containers
    assert (await engine.moves.under_way(), await engine.moves.departed("a")) == ([], [])


async def test_what_may_run_yet_is_not_said_to_be_stopped(
    unhurried: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    api = unhurried
    await run_on(api, "a", "web", **MOVES)
    await executors["a"].down()
    await api.node_in("a", node_pb2.NODE_STATE_UNREACHABLE)
    assert (await refused(api.stop("web"))).reason == "NODE_UNAVAILABLE"
    assert await runs_on(api, "web", "a")
