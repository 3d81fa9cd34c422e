"""How many containers each node has: followed in memory, because a placement cannot read thirty thousand records.

Nothing is decided by it but where one more container goes when several nodes fit, so that it may lag behind the store.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping

import structlog

from api_service.nodes.registry import NodeRegistry
from api_service.records.container_places import ContainerPlaces
from common.errors import OutOfRange, SlipwayError

_log = structlog.get_logger(__name__)

_RETRY = 1.0  # seconds
_PATIENCE = 5.0  # seconds until a placement does without


class NodeLoads:
    """Run `follow_forever` as a task: it begins to work when there is a second node."""

    def __init__(self, places: ContainerPlaces, registry: NodeRegistry) -> None:
        self._places = places
        self._registry = registry
        self._nodes: dict[str, str] = {}  # of containers
        self._counts: Counter[str] = Counter()
        self._loaded = asyncio.Event()

    async def counts(self) -> Mapping[str, int]:
        """By node; a node without containers is not among them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._loaded.wait()
        return self._counts

    def note(self, container_id: str, node: str | None) -> None:
        """What is known before the store tells it: the next placement is to see this one. Where nobody counts, nothing
        is kept: nothing would ever take it away again."""
        if self._loaded.is_set():
            self._note(container_id, node)

    def _note(self, container_id: str, node: str | None) -> None:
        before = self._nodes.pop(container_id, None)
        if before is not None:
            self._counts[before] -= 1
        if node is not None:
            self._nodes[container_id] = node
            self._counts[node] += 1

    async def follow_forever(self) -> None:
        await self._registry.until_several()
        while True:
            try:
                await self._follow()
            except OutOfRange:
                continue  # from the beginning
            except SlipwayError as error:
                _log.warning("containers of nodes not counted", error=error.message, retry_in=_RETRY)
                await asyncio.sleep(_RETRY)

    async def _follow(self) -> None:
        self._nodes.clear()
        self._counts.clear()
        async for places in self._places.follow():
            for container_id, node in places.items():
                self._note(container_id, node)
            self._loaded.set()
