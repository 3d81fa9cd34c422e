"""Three real etcd members, killed, frozen and cut off in turn: commits go on, nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api_service.etcd.cluster import Cluster, open_cluster
from api_service.etcd.target import EtcdTarget
from api_service.store.store import Change, Put, RevisionConflict
from common.errors import Unavailable
from tests.fixtures.etcd import EtcdCluster, etcd_cluster

_PATIENCE = 40.0  # seconds until a test that waits has failed
_LEASE = 30  # seconds; more than an election takes on a busy machine


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path / "etcd", size=3) as cluster:
        yield cluster


class Writer:
    """Makes one key after the other, each once, and says which were acknowledged and how long it could not."""

    def __init__(self, cluster: Cluster) -> None:
        self._store = cluster.store
        self.acknowledged: list[int] = []
        self.longest = 0.0
        self._another = asyncio.Event()

    async def write_forever(self) -> None:
        number, since = 0, time.monotonic()
        while True:
            try:
                await self._store.commit(Put(key=f"k/{number:06d}", value=b"", expected_revision=0))
            except Unavailable as error:
                assert error.retry_after is not None
                continue
            except RevisionConflict:
                pass  # it was made by one that was told Unavailable
            self.acknowledged.append(number)
            self.longest = max(self.longest, time.monotonic() - since)
            number, since = number + 1, time.monotonic()
            self._another.set()
            self._another.clear()

    async def reaches(self, more: int) -> None:
        goal = len(self.acknowledged) + more
        while len(self.acknowledged) < goal:
            await self._another.wait()


@asynccontextmanager
async def writing(cluster: Cluster) -> AsyncIterator[Writer]:
    writer = Writer(cluster)
    task = asyncio.create_task(writer.write_forever())
    try:
        await writer.reaches(20)
        yield writer
        await writer.reaches(20)
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled(), task.exception()


async def told_once(cluster: Cluster, begin: int, writer: Writer, seen: list[Change]) -> None:
    """What a watcher was told is what was acknowledged, each once, in order; and so say records and history."""
    count = len(writer.acknowledged)
    expected = [f"k/{number:06d}" for number in range(count)]
    async with asyncio.timeout(_PATIENCE):
        while len(seen) < count:
            await asyncio.sleep(0.01)
    assert [change.key for change in seen][:count] == expected
    assert [change.revision for change in seen] == sorted({change.revision for change in seen})
    assert [entry.key for entry in await cluster.store.list("k/")][:count] == expected
    changes = cluster.store.watch("k/", after=begin)
    assert [(await anext(changes)).key for _ in range(count)] == expected


@asynccontextmanager
async def watching(cluster: Cluster, begin: int) -> AsyncIterator[list[Change]]:
    seen: list[Change] = []

    async def watch() -> None:
        async for change in cluster.store.watch("k/", after=begin):
            seen.append(change)

    task = asyncio.create_task(watch())
    yield seen
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), task.exception()


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_leader_that_dies_or_hangs(etcd: EtcdCluster, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api_service.etcd.session.LEASE", _LEASE)
    leader = etcd.leader()
    endpoints = (leader.endpoint, *(each for each in etcd.endpoints if each != leader.endpoint))
    target = EtcdTarget(endpoints=endpoints)
    async with asyncio.timeout(2 * _PATIENCE), open_cluster(target) as one, open_cluster(target) as other:
        begin = await other.store.revision()
        async with one.claims.hold("journal/a") as claim, watching(other, begin) as seen:
            async with writing(one) as writer:
                leader.kill() if how == "kill" else leader.freeze()
                died = time.monotonic()
                await writer.reaches(20)
                lease = await one.claims._session.lease()
                while lease.ends < died + _LEASE:  # it is renewed where the commits go
                    await asyncio.sleep(0.05)
                if how == "freeze":
                    leader.thaw()
                else:
                    await asyncio.to_thread(etcd.start, leader)
            print(f"leader: {how}: longest time without a commit {writer.longest:.2f} s")
            assert writer.longest < _LEASE
            assert not claim.lost.is_set(), "the lease outlives an election"
            await told_once(other, begin, writer, seen)


async def test_members_that_cannot_be_reached_are_passed_over(etcd: EtcdCluster) -> None:
    with socket.socket() as deaf, socket.socket() as closed:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)  # accepts, and never says a word
        closed.bind(("127.0.0.1", 0))
        away = [f"127.0.0.1:{each.getsockname()[1]}" for each in (closed, deaf)]
        target = EtcdTarget(endpoints=(*away, etcd.endpoints[0]))
        async with asyncio.timeout(_PATIENCE), open_cluster(target) as cluster:
            shortest = _PATIENCE
            for number in range(5):
                begun = time.monotonic()
                await cluster.store.commit(Put(key=f"k{number}", value=b""))
                shortest = min(shortest, time.monotonic() - begun)
            assert shortest < 2, "a member that answers is stayed with"


async def test_without_a_majority_reads_go_on_and_writes_say_why(etcd: EtcdCluster) -> None:
    async with asyncio.timeout(3 * _PATIENCE), open_cluster(EtcdTarget(endpoints=etcd.endpoints)) as cluster:
        store = cluster.store
        await store.commit(Put(key="k", value=b"known"))
        for member in etcd.members[:2]:
            member.kill()
        with pytest.raises(Unavailable) as caught:
            await store.commit(Put(key="k", value=b"new"))
        assert caught.value.reason == "STORE_UNREACHABLE"
        assert caught.value.retry_after is not None
        with pytest.raises(Unavailable):
            async with cluster.claims.hold("x"):
                raise AssertionError("got a claim from nobody")
        assert not await store.catch_up()
        shortest = _PATIENCE
        for _ in range(5):
            begun = time.monotonic()
            assert not await store.catch_up()
            shortest = min(shortest, time.monotonic() - begun)
        assert shortest < 0.1, "only the first request waits"
        entry = await store.get("k")
        assert entry is not None
        assert entry.value == b"known"
        await asyncio.to_thread(etcd.start, *etcd.members[:2])
        begun = time.monotonic()
        while True:
            try:
                await store.commit(Put(key="k", value=b"back"))
                break
            except Unavailable:
                continue
        print(f"majority back: a commit after {time.monotonic() - begun:.2f} s")
        while not await store.catch_up():
            await asyncio.sleep(0.05)
        async with cluster.claims.hold("x"):
            pass
