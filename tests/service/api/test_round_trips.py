"""How often a request asks etcd, and for what. A count cannot be wrong because the machine is busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from etcdserverpb import etcd_service_pb2 as pb2
from etcdserverpb import etcd_service_pb2_grpc as pb2_grpc

from api_service.etcd.client import Member
from api_service.etcd.cluster import Cluster, open_cluster
from api_service.etcd.mirror import Mirror
from api_service.etcd.target import EtcdTarget
from tests.fixtures.api import PATIENCE, Api, refused, running_api
from tests.fixtures.etcd import etcd_cluster
from tests.fixtures.fake_executor.executor import FakeExecutor

_READ, _LOCK, _COMMIT, _RELEASE = "read", "lock", "commit", "release"


class Asked:
    """What etcd was asked of one container, its node's journal included, in order; and for its last commit."""

    def __init__(self) -> None:
        self.what: list[str] = []
        self.subject = ""
        self.gates: dict[str, asyncio.Event] = {}

    async def of(self, request: pb2.RangeRequest | pb2.TxnRequest) -> None:
        what = self._what(request)
        if what:
            self.what.append(what)
            if (gate := self.gates.get(what)) is not None:
                await gate.wait()

    def _what(self, request: pb2.RangeRequest | pb2.TxnRequest) -> str:
        if isinstance(request, pb2.RangeRequest):
            return _READ if request.key.endswith(b"/head") else ""
        puts = [operation.request_put.key.decode() for operation in request.success]
        deletes = [operation.request_delete_range.key.decode() for operation in request.success]
        if any(f"/containers/{self.subject}" in key for key in (*puts, *deletes)):
            return _COMMIT
        if any(f"/locks/container/{self.subject}" in key for key in puts):
            return _LOCK
        return _RELEASE if any(f"/locks/container/{self.subject}" in key for key in deletes) else ""

    async def until(self, *expected: str) -> None:
        """What is not waited for comes a little later."""
        async with asyncio.timeout(PATIENCE):
            while self.what != list(expected):
                assert len(self.what) <= len(expected), self.what
                await asyncio.sleep(0.01)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()

    class Recorded(pb2_grpc.KVStub):
        def __init__(self, channel: Any) -> None:
            super().__init__(channel)
            self.Range, self.Txn = _recorded(asked, self.Range), _recorded(asked, self.Txn)

    monkeypatch.setattr(pb2_grpc, "KVStub", Recorded)
    return asked


def _recorded(asked: Asked, method: Any) -> Any:
    async def call(request: Any, **more: Any) -> Any:
        await asked.of(request)
        # What a busy member is late with would be asked again.
        return await method(request, **{**more, "timeout": PATIENCE})

    return call


@pytest.fixture
def target(tmp_path: Path) -> Iterator[EtcdTarget]:
    with etcd_cluster(tmp_path / "etcd") as members:
        yield EtcdTarget(endpoints=members.endpoints)


@asynccontextmanager
async def running_on(
    target: EtcdTarget, directory: Path, executor: FakeExecutor, *, connected: bool = True
) -> AsyncIterator[tuple[Api, Cluster]]:
    directory.mkdir()
    async with (
        open_cluster(target) as cluster,
        running_api(directory, executor, connected=connected, store=(cluster.store, cluster.claims)) as api,
    ):
        yield api, cluster


@pytest.fixture
async def api(tmp_path: Path, executor: FakeExecutor, asked: Asked, target: EtcdTarget) -> AsyncIterator[Api]:
    async with running_on(target, tmp_path / "api", executor) as (api, _):
        await api.load()
        yield api


async def test_each_verb_asks_etcd_as_often_as_is_written_down(api: Api, asked: Asked) -> None:
    """docs/architecture.md, "The store"."""
    asked.what.clear()
    box = await api.create(name="box")
    assert asked.what == [_READ, _COMMIT, _COMMIT]
    asked.subject = box
    asked.what.clear()
    await api.start("box")
    await asked.until(_LOCK, _COMMIT, _RELEASE)
    asked.what.clear()
    await api.inspect("box")
    await api.names()
    assert asked.what == [_READ, _READ]


async def test_a_start_does_not_wait_for_the_release_of_its_lock(api: Api, asked: Asked) -> None:
    asked.subject = box = await api.create(name="box")
    asked.gates[_RELEASE] = asyncio.Event()
    await asyncio.wait_for(api.start("box"), PATIENCE)
    assert (await api.inspect(box)).state.running
    asked.gates[_RELEASE].set()


async def test_a_start_knows_what_was_acknowledged_elsewhere(
    tmp_path: Path, executor: FakeExecutor, target: EtcdTarget, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although it does not ask for that before its lock, and is told of nothing until it has asked for something."""
    told = asyncio.Event()
    changes = Mirror._changes

    async def late(mirror: Mirror, member: Member, *, after: int) -> AsyncIterator[Any]:
        async for each in changes(mirror, member, after=after):
            if mirror is cluster.store._mirror:
                await told.wait()
            yield each

    async def start() -> bool:
        asked.what.clear()
        starting = asyncio.ensure_future(two.start("web"))
        async with asyncio.timeout(PATIENCE):
            while not {_READ, _LOCK} & set(asked.what):
                await asyncio.sleep(0.01)
        told.set()
        answer = await starting
        told.clear()
        return answer.already_started

    async def stop() -> None:
        """Which both know."""
        await one.stop("web")
        told.set()
        await two.names()
        told.clear()

    async with running_on(target, tmp_path / "one", executor) as (one, _):
        await one.load()
        monkeypatch.setattr(Mirror, "_changes", late)
        async with running_on(target, tmp_path / "two", executor, connected=False) as (two, cluster):
            first = await one.create(name="web")
            assert not await start()
            assert (await one.inspect(first)).state.running
            await stop()
            await one.remove("web")
            second = await one.create(name="web")
            assert not await start()
            assert (await one.inspect(second)).state.running
            assert await start()
            await stop()
            await one.start("web")
            assert await start()
            await stop()
            await one.remove("web")
            assert (await refused(start())).code == grpc.StatusCode.NOT_FOUND
            told.set()
