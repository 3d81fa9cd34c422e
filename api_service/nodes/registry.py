"""The nodes this service knows. One machine has one, `local`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api_service.nodes.executor import ExecutorClient, JournalEntry
from api_service.nodes.journal_follower import JournalFollower
from api_service.nodes.observer import Observer
from api_service.records.container import ContainerRecord
from common.errors import NotFound

_JOURNAL_PATIENCE = 1.0  # seconds an answer waits for the journal to tell the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    executor: ExecutorClient
    follower: JournalFollower
    observer: Observer

    async def settle(self, entry: JournalEntry) -> ContainerRecord | None:
        """Get the entry of an answer into the records; return the container's record after that.

        Through the journal when it is being followed, because only then what happened before it is told before it;
        directly when it is not.
        """
        await self.follower.reached(entry.sequence, patience=_JOURNAL_PATIENCE)
        return await self.observer.observe(entry, journal_id=self.follower.journal_id)


class NodeRegistry:
    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes: Mapping[str, Node] = {node.name: node for node in sorted(nodes, key=lambda node: node.name)}

    def get(self, name: str) -> Node:
        """Raises NotFound for a node that was configured away."""
        node = self._nodes.get(name)
        if node is None:
            raise NotFound(f"node {name!r} is not configured", resource_type="node", resource_name=name)
        return node

    def all(self) -> Sequence[Node]:
        """Ordered by name."""
        return tuple(self._nodes.values())

    def place(self) -> Node:
        """The node for a new container."""
        return next(iter(self._nodes.values()))
