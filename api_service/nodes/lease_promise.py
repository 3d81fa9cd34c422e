"""The longest lease that a node may hold by what any API service has promised it: on the node's record, since whoever
judges later whether the lease is over may have other settings."""

from __future__ import annotations

import dataclasses

from api_service.records.node_repository import NodeRepository


class LeasePromise:
    """Only who follows the node asks or writes. Both raise what the store raises."""

    def __init__(self, node: str, nodes: NodeRepository) -> None:
        self._node = node
        self._nodes = nodes

    async def longest(self) -> float:
        """Seconds; 0 when nothing was promised, or the node is not on record."""
        stored = await self._nodes.get(self._node)
        return stored.record.promised_lease if stored is not None else 0.0

    async def put(self, seconds: float) -> None:
        await self._nodes.update(self._node, lambda found: dataclasses.replace(found, promised_lease=seconds))
