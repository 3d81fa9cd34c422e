"""The node of a service's settings when the store did not take its record."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from slipway.v1 import node_service_pb2 as pb2

from api_service.records.node_repository import NodeRepository
from common.errors import ResourceExhausted
from tests.fixtures.api import PATIENCE, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.shared_store import SharedStore


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
    shared: SharedStore, executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose executor it is could not be told to the others."""
    with monkeypatch.context() as full:
        full.setattr(NodeRepository, "add", _refuse)
        one = await shared.join("one", executor, connected=False)
    follower = one.engine.nodes.get("local").follower
    async with asyncio.timeout(PATIENCE):
        while "not on record yet" not in follower.failure:
            await follower.changed()
    assert "FollowJournal" not in executor.calls
    await shared.join("two", executor, connected=False)
    await one.followed()
