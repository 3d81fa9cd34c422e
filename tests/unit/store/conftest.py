"""An etcd for the whole run, with a prefix for each test; and every kind of store."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from api_service.etcd.client import EtcdClient
from api_service.etcd.session import Session
from api_service.etcd.store import EtcdStore
from api_service.etcd.target import EtcdTarget
from api_service.store.memory_store import MemoryStore
from api_service.store.sqlite_store import SqliteStore
from api_service.store.store import Store
from tests.fixtures.etcd import EtcdCluster, etcd_cluster
from tests.fixtures.stores import StoreMaker

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def etcd_target(etcd: EtcdCluster) -> EtcdTarget:
    """Nobody else's keys."""
    return EtcdTarget(endpoints=etcd.endpoints, prefix=f"/test-{next(_NUMBERS)}/")


@pytest.fixture(params=["memory", "sqlite", "etcd"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    numbers = itertools.count()

    def make(history_limit: int) -> AbstractAsyncContextManager[Store]:
        if request.param == "memory":
            return MemoryStore(history_limit=history_limit)
        if request.param == "sqlite":
            return SqliteStore(tmp_path / f"{next(numbers)}.db", history_limit=history_limit)
        target: EtcdTarget = request.getfixturevalue("etcd_target")
        client = EtcdClient(target)
        session = Session(client)
        return _opened(client, session, EtcdStore(client, session, history_limit=history_limit))

    return make


@asynccontextmanager
async def _opened(client: EtcdClient, session: Session, store: EtcdStore) -> AsyncIterator[Store]:
    async with client, session, store:
        yield store


@pytest.fixture
async def store(make_store: StoreMaker) -> AsyncIterator[Store]:
    async with make_store(1000) as opened:
        yield opened
