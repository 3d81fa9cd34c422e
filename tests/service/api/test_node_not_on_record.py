"""The node of a service's settings when the store did not take its record."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from slipway.v1 import node_service_pb2 as pb2

from api_service.records.node_repository import NodeRepository
from api_service.store.claims import LocalClaims
from api_service.store.memory_store import MemoryStore
from common.errors import ResourceExhausted
from tests.fixtures.api import PATIENCE, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor


async def _refuse(*_: object) -> None:
    raise ResourceExhausted("the disk is full")


async def test_who_has_the_store_alone_deals_with_it(
    tmp_path: Path, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NodeRepository, "add", _refuse)
    async with running_api(tmp_path, executor) as api:
        assert list((await api.nodes.ListNodes(pb2.ListNodesRequest())).nodes) == []
        await api.load()
        box = await api.run()
        assert executor.containers[box].running


async def test_who_shares_the_store_waits_until_it_is_on_record(
    tmp_path: Path, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose executor it is could not be told to the others."""
    for name in ("1", "2"):
        (tmp_path / name).mkdir()
    async with MemoryStore() as store, AsyncExitStack() as stack:
        claims = LocalClaims()
        with monkeypatch.context() as full:
            full.setattr(NodeRepository, "add", _refuse)
            one = await stack.enter_async_context(
                running_api(tmp_path / "1", executor, store=(store, claims), connected=False)
            )
        follower = one.engine.nodes.get("local").follower
        async with asyncio.timeout(PATIENCE):
            while "not on record yet" not in follower.failure:
                await follower.changed()
        assert "FollowJournal" not in executor.calls
        shared = (store, LocalClaims(beside=claims))
        await stack.enter_async_context(running_api(tmp_path / "2", executor, store=shared, connected=False))
        await one.followed()
