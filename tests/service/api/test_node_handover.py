"""Several API services over one store, of which some reach a node and others do not: who reaches it follows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from slipway.v1 import node_service_pb2 as node_pb2

from api_service.nodes.journal_follower import JournalFollower
from api_service.nodes.lease import LeaseTerms
from api_service.nodes.reach import reach_terms
from tests.fixtures.api import PATIENCE, Api, refused
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.links import CUT, Links
from tests.fixtures.shared_store import shared_store
from tests.fixtures.two_nodes import MOVES, until

READY, UNREACHABLE, LOST = (
    node_pb2.NODE_STATE_READY,
    node_pb2.NODE_STATE_UNREACHABLE,
    node_pb2.NODE_STATE_LOST,
)
Replicas = Sequence[tuple[Api, Links]]


@asynccontextmanager
async def replicas(
    directory: Path,
    executors: Mapping[str, FakeExecutor],
    monkeypatch: pytest.MonkeyPatch,
    terms: LeaseTerms,
    *,
    count: int = 2,
) -> AsyncIterator[Replicas]:
    """The first follows both nodes, the others wait in turn."""
    async with shared_store(directory) as shared:
        made: list[tuple[Api, Links]] = []
        for number in range(count):
            links = Links()
            with links.used(monkeypatch):
                api = await shared.join(str(number), executors["a"], configured=False, lease=terms)
            for name, fake in executors.items():
                if not made:
                    await api.add_node(name, fake.address)
                await api.node_in(name, READY)
            made.append((api, links))
        await made[0][0].load()
        yield made


async def follows(api: Api, node: str) -> None:
    """Until this service does, and is connected."""
    follower = api.engine.nodes.get(node).follower
    async with asyncio.timeout(PATIENCE):
        while not follower.connected:
            await follower.changed()


async def holder(api: Api) -> str:
    held = await api.engine.claims.holder("journal/a")
    return held.replica if held is not None else ""


async def run_marked(api: Api) -> str:
    """Begins on node a."""
    cordon = node_pb2.UpdateNodeRequest(node="b", availability=node_pb2.NODE_AVAILABILITY_CORDONED)
    await api.nodes.UpdateNode(cordon)
    container = await api.run(name="web", **MOVES)
    active = node_pb2.UpdateNodeRequest(node="b", availability=node_pb2.NODE_AVAILABILITY_ACTIVE)
    await api.nodes.UpdateNode(active)
    return container


async def test_a_node_is_followed_by_who_reaches_it(
    tmp_path: Path, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And by nobody else, when the link is mended, until it is the other one that does not reach it."""
    terms = LeaseTerms(ttl=6.0, margin=2.0)
    async with replicas(tmp_path, executors, monkeypatch, terms) as ((one, links_of_one), (two, links_of_two)):
        web = await run_marked(one)
        links_of_one.cut(one, "a")
        assert (await one.node_in("a", UNREACHABLE)).state_reason == CUT
        await follows(two, "a")
        for api in (one, two):
            assert (await api.node_in("a", READY)).state_reason == ""
        assert not one.engine.nodes.get("a").follower.following
        assert one.engine.nodes.get("b").follower.connected, "what it reaches stays its own"
        executors["a"].exit(web, 3)
        await until(lambda: _exited(one, web))
        assert (await refused(one.start(web))).reason == "NODE_UNAVAILABLE"
        await two.start(web)
        links_of_one.mend("a")
        await asyncio.sleep(2 * reach_terms(terms).keep)
        assert two.engine.nodes.get("a").follower.connected
        links_of_two.cut(two, "a")
        await follows(one, "a")
        await two.node_in("a", READY)
        assert (await one.inspect("web")).state.running
        assert "container move" not in await one.actions(type=["container"])


async def _exited(api: Api, container: str) -> bool:
    return not (await api.inspect(container)).state.running


async def test_a_node_that_nobody_reaches_stays_where_it_is_and_is_lost(
    tmp_path: Path, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = LeaseTerms(ttl=3.0, margin=0.5)
    async with replicas(tmp_path, executors, monkeypatch, terms) as made:
        (one, _), (two, _) = made
        await run_marked(one)
        follower = await holder(one)
        for api, links in made:
            links.cut(api, "a")
        await two.node_in("a", LOST)
        await until(lambda: _runs_on(two, "b"))
        await asyncio.sleep(2 * reach_terms(terms).keep)
        assert await holder(two) == follower == one.engine.claims.replica
        assert await two.engine.claims.held("reaches/") == {}


async def _runs_on(api: Api, node: str) -> bool:
    web = await api.inspect("web")
    return web.node == node and web.state.running


async def test_a_node_that_is_handed_to_and_fro_is_lost_in_time(
    tmp_path: Path, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers what it is asked, but neither its journal can be followed nor its lease be renewed. If each holder
    waited anew it never would be."""
    terms = LeaseTerms(ttl=1.5, margin=3.0)
    async with replicas(tmp_path, executors, monkeypatch, terms) as made:
        (one, _), (two, _) = made
        await run_marked(one)
        begun = time.monotonic()
        for api, links in made:
            links.cut(api, "a", "FollowJournal", "RenewLease")
        holders = [await holder(one)]
        async with asyncio.timeout(PATIENCE):
            while (await one.node("a")).state != LOST:
                if (now := await holder(one)) not in ("", holders[-1]):
                    holders.append(now)
                await asyncio.sleep(0.005)
        passed = time.monotonic() - begun
        assert set(holders) == {one.engine.claims.replica, two.engine.claims.replica}
        assert len(holders) <= 2 + passed / reach_terms(terms).keep, "it is not handed over all the time"
        assert time.monotonic() > executors["a"].leased_until + terms.margin - 0.1
        await until(lambda: _runs_on(two, "b"))


async def test_of_several_that_wait_the_one_that_reaches_the_node_gets_it(
    tmp_path: Path, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it is not the first in turn."""
    terms = LeaseTerms(ttl=9.0, margin=1.0)
    followed, follow = [], JournalFollower.follow_forever

    async def noted(follower: JournalFollower) -> None:
        followed.append(follower)
        await follow(follower)

    async with replicas(tmp_path, executors, monkeypatch, terms, count=3) as made:
        three = made[2][0]
        monkeypatch.setattr(JournalFollower, "follow_forever", noted)
        for api, links in made[:2]:
            links.cut(api, "a")
        await follows(three, "a")
        assert followed == [three.engine.nodes.get("a").follower], "the second has had it first"


async def test_what_a_whole_replica_does_not_reach_goes_over_at_once(
    tmp_path: Path, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is renewed before it is over, so what may run elsewhere runs on."""
    terms = LeaseTerms(ttl=12.0, margin=1.0)
    async with replicas(tmp_path, executors, monkeypatch, terms) as ((one, links), (two, _)):
        await run_marked(one)
        await asyncio.sleep(reach_terms(terms).keep)
        for node, fake in executors.items():
            await fake.until(lambda fake=fake: fake.leased_until > time.monotonic())  # type: ignore[misc]
            links.cut(one, node)
        before = {node: fake.leased_until for node, fake in executors.items()}
        for node, fake in executors.items():
            await follows(two, node)
            await fake.until(lambda node=node, fake=fake: fake.leased_until > before[node])  # type: ignore[misc]
            assert time.monotonic() < before[node], "its lease was over"
