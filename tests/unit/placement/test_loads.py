"""How many containers each node has: counted where there are several nodes, and kept nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from api_service.nodes.registry import NodeRegistry
from api_service.placement import loads as module
from api_service.placement.loads import NodeLoads
from api_service.records.container_places import ContainerPlaces
from api_service.store.memory_store import MemoryStore
from api_service.store.store import Put


class _Node:
    def __init__(self, name: str) -> None:
        self.name = name


def _place(container_id: str, node: str) -> Put:
    return Put(key=f"containers/{container_id}", value=f'{{"node": "{node}"}}'.encode())


async def test_one_node_alone_is_not_counted_and_the_second_begins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.0)
    async with MemoryStore() as store:
        await store.commit(_place("c1", "a"))
        registry = NodeRegistry()
        loads = NodeLoads(ContainerPlaces(store), registry)
        counting = asyncio.create_task(loads.follow_forever())
        registry.add(cast("Any", _Node("a")))
        loads.note("gone", "a")
        assert dict(await loads.counts()) == {}
        registry.add(cast("Any", _Node("b")))
        monkeypatch.setattr(module, "_PATIENCE", 10.0)
        assert dict(await loads.counts()) == {"a": 1}
        loads.note("c2", "b")
        assert dict(await loads.counts()) == {"a": 1, "b": 1}
        counting.cancel()
        await asyncio.wait([counting])
