"""One API service for each test, with an image loaded, and executors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.fixtures.api import Api, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor, serving_nodes
from tests.fixtures.node_leases import TERMS, Clock
from tests.fixtures.shared_store import SharedStore, shared_store


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[FakeExecutor]:
    async with FakeExecutor(tmp_path / "executor.sock").serving() as executor:
        yield executor


@pytest.fixture
async def executors(tmp_path: Path) -> AsyncIterator[Mapping[str, FakeExecutor]]:
    """Of two nodes, `a` and `b`, that no service deals with yet."""
    async with serving_nodes(tmp_path, "a", "b") as executors:
        yield executors


@pytest.fixture
async def api(tmp_path: Path, executor: FakeExecutor) -> AsyncIterator[Api]:
    async with running_api(tmp_path, executor) as api:
        await api.load()
        yield api


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("api_service.nodes.lease.time", clock)
    return clock


@pytest.fixture
async def leasing(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> AsyncIterator[Api]:
    """A service with both of these nodes, which have leases that are over soon."""
    async with running_api(tmp_path, executors["a"], configured=False, lease=TERMS) as api:
        await api.add_nodes(executors)
        await api.load()
        yield api


@pytest.fixture
async def cluster(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> AsyncIterator[Api]:
    """A service without a node of its own."""
    async with running_api(tmp_path, executors["a"], configured=False) as api:
        yield api


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[SharedStore]:
    async with shared_store(tmp_path) as shared:
        yield shared
