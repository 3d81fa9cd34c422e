"""Who says which nodes are reached: as few questions as can be, and never too many at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from api_service.deadline import Deadline
from api_service.executor_client.node import NodeFacts
from api_service.nodes.lease import LeaseTerms
from api_service.nodes.reach import ReachTerms, Scout, another_reaches, reach_terms
from api_service.nodes.registry import Node, NodeRegistry
from api_service.records.node import NodeRecord, NodeState, NodeStatus
from api_service.store.claims import LocalClaims
from common.errors import Unavailable

TERMS = ReachTerms(look=0.05, answer=0.1, patience=0.1, keep=1.0)
PATIENCE = 60.0  # seconds until a test that waits has failed


@dataclass
class Nodes:
    """Executors that answer with the id here, or that are silent."""

    answers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    registry: NodeRegistry = field(default_factory=NodeRegistry)

    def add(self, name: str, state: NodeState, *, executor_id: str = "", following: bool = False) -> Node:
        record = NodeRecord(
            name=name, created_at=0, address=name, status=NodeStatus(state=state, since=0), executor_id=executor_id
        )

        async def facts(*, deadline: Deadline) -> NodeFacts:
            self.asked.append(name)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                if name not in self.answers:
                    await asyncio.sleep(deadline.remaining or 0)
                    raise Unavailable("silent")
                return cast("NodeFacts", SimpleNamespace(node_id=self.answers[name]))
            finally:
                self.at_once -= 1

        made = SimpleNamespace(
            name=name,
            record=record,
            executor=SimpleNamespace(facts=facts),
            follower=SimpleNamespace(following=following, connected=False),
            wanted_elsewhere=asyncio.Event(),
        )
        node = cast("Node", made)
        self.registry.add(node)
        return node


@asynccontextmanager
async def scouting(nodes: Nodes, claims: LocalClaims) -> AsyncIterator[None]:
    scout = Scout(nodes.registry, claims, TERMS)
    tasks = [asyncio.create_task(work) for work in (scout.scout_forever(), scout.look_forever())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.01)


async def reached(claims: LocalClaims) -> Sequence[str]:
    return sorted(name.removeprefix("reaches/") for name in await claims.held("reaches/"))


async def test_a_thousand_silent_nodes_are_asked_a_few_at_a_time_and_a_new_one_at_once() -> None:
    nodes, claims = Nodes(), LocalClaims()
    for number in range(1000):
        nodes.add(f"gone-{number}", NodeState.LOST)
    async with scouting(nodes, claims):
        await until(lambda: _is(len(nodes.asked) > 100))
        nodes.answers["new"] = "id"
        nodes.add("new", NodeState.UNREACHABLE, executor_id="id")
        before = len(nodes.asked)
        await until(lambda: _said(claims, "new"))
        assert nodes.asked.index("new") - before <= 3 * 32
        await until(lambda: _is(len(nodes.asked) > 600))
        assert nodes.most_at_once == 32
    assert await reached(claims) == [], "who does not look any more says nothing"


async def _is(value: bool) -> bool:
    return value


async def _said(claims: LocalClaims, *names: str) -> bool:
    return await reached(claims) == sorted(names)


async def test_it_is_said_while_it_is_so() -> None:
    nodes, claims = Nodes(answers={"away": "id", "stranger": "other", "new": "unknown", "taken": "id"}), LocalClaims()
    away = nodes.add("away", NodeState.UNREACHABLE, executor_id="id")
    nodes.add("stranger", NodeState.UNREACHABLE, executor_id="own")
    nodes.add("new", NodeState.UNREACHABLE)
    nodes.add("taken", NodeState.UNREACHABLE)
    nodes.add("silent", NodeState.LOST, executor_id="id-2")
    nodes.add("well", NodeState.READY, executor_id="id-3")
    nodes.add("ours", NodeState.UNREACHABLE, executor_id="id-4", following=True)
    async with scouting(nodes, claims):
        await until(lambda: _said(claims, "away", "new"))
        assert await another_reaches(LocalClaims(beside=claims), away)
        assert not await another_reaches(claims, away), "it is this one that says so"
        answered = nodes.answers.pop("away")
        await until(lambda: _said(claims, "new"))
        nodes.answers["away"] = answered
        await until(lambda: _said(claims, "away", "new"))
        away.record = nodes.add("away", NodeState.READY, executor_id="id").record
        await until(lambda: _said(claims, "new"))
    assert {"well", "ours"}.isdisjoint(nodes.asked)


async def test_what_another_one_says_is_not_asked_again() -> None:
    nodes, claims = Nodes(answers={"away": "id"}), LocalClaims()
    nodes.add("away", NodeState.UNREACHABLE, executor_id="id")
    async with scouting(nodes, claims):
        async with LocalClaims(beside=claims).hold("reaches/away"):
            await asyncio.sleep(4 * TERMS.look)
            assert nodes.asked == []
        await until(lambda: _said(claims, "away"))


async def test_a_node_is_wanted_elsewhere_while_another_one_reaches_it_and_its_own_does_not() -> None:
    nodes, claims = Nodes(), LocalClaims()
    node = nodes.add("away", NodeState.UNREACHABLE, following=True)
    nodes.add("lonely", NodeState.UNREACHABLE, following=True)
    async with scouting(nodes, claims):
        async with claims.hold("reaches/away"):
            await asyncio.sleep(TERMS.patience + 4 * TERMS.look)
            assert not node.wanted_elsewhere.is_set(), "it was this one itself"
        async with LocalClaims(beside=claims).hold("reaches/away"):
            begun = time.monotonic()
            await asyncio.wait_for(node.wanted_elsewhere.wait(), PATIENCE)
            assert time.monotonic() - begun >= TERMS.patience
            node.follower.connected = True  # type: ignore[misc]
            await until(lambda: _is(not node.wanted_elsewhere.is_set()))
            node.follower.connected = False  # type: ignore[misc]
            await asyncio.wait_for(node.wanted_elsewhere.wait(), PATIENCE)
        await until(lambda: _is(not node.wanted_elsewhere.is_set()))
    assert [each.name for each in nodes.registry.all() if each.wanted_elsewhere.is_set()] == []


@pytest.mark.parametrize("ttl", [3.0, 30.0, 600.0])
def test_a_hand_over_is_done_within_half_a_lease(ttl: float) -> None:
    terms = reach_terms(LeaseTerms(ttl=ttl))
    assert terms.look + terms.answer + terms.look + terms.patience < ttl / 2
