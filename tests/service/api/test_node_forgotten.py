"""A lost node that is forgotten: what had left it runs on, also when the node is taken in again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from slipway.v1 import node_service_pb2 as node_pb2

from api_service.records.exec_repository import ExecRepository
from api_service.store.store import Put
from common.errors import Unavailable
from tests.fixtures.api import Api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.node_leases import Clock, is_leased
from tests.fixtures.two_nodes import MOVES, only, run_on, runs_on, until

READY, LOST = node_pb2.NODE_STATE_READY, node_pb2.NODE_STATE_LOST


@pytest.fixture
def api(leasing: Api) -> Api:
    return leasing


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
    await until(lambda: is_leased(a))
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
