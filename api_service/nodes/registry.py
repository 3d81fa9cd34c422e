"""The nodes this service knows. One machine has one, `local`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import structlog

from api_service.nodes.deadline import Deadline
from api_service.nodes.executor import ExecutorClient, JournalEntry, NodeFacts
from api_service.nodes.journal_follower import JournalFollower
from api_service.nodes.observer import Observer
from common.errors import DeadlineExceeded, NotFound, Unavailable

_log = structlog.get_logger(__name__)

_JOURNAL_PATIENCE = 1.0  # seconds an answer waits for the journal to tell the same
_CONTACT_PATIENCE = 5.0  # seconds an answer waits for the journal to be known at all
_FACTS_KEPT = 30.0  # seconds
_FACTS_TIME = 5.0  # seconds to ask for them


class Node:
    """One node: its executor, and its journal's way into the records."""

    def __init__(self, *, name: str, executor: ExecutorClient, follower: JournalFollower, observer: Observer) -> None:
        self.name = name
        self.executor = executor
        self.follower = follower
        self._observer = observer
        self._facts: NodeFacts | None = None
        self._facts_at = 0.0

    async def settle(self, entry: JournalEntry) -> None:
        """Get the entry of an answer into the records.

        What happened before it is told before it: when it is not the journal's very next entry, the journal is waited
        for, unless it is not being followed. While it is unknown which journal the entry belongs to, nothing is
        written, for the journal would tell it again: after some seconds the entry is left to the journal.
        """
        if not await self.follower.known(patience=_CONTACT_PATIENCE):
            _log.warning("answer left to the journal", node=self.name, container=entry.container_id)
            return
        with self.follower.ahead(entry) as is_next:
            # What the journal or a snapshot has reached is in the records, and told.
            if is_next or not await self.follower.reached(entry.sequence, patience=_JOURNAL_PATIENCE):
                await self._observer.observe([entry], journal_id=self.follower.journal_id)

    def forget_facts(self) -> None:
        """The executor was away: it may have been started with other settings. Known facts serve while it does not
        answer."""
        self._facts_at = float("-inf")

    async def facts(self, deadline: Deadline) -> NodeFacts:
        """What the node is, at most half a minute old, or as it was when it last answered. Raises Unavailable when it
        never did."""
        if self._facts is None or time.monotonic() - self._facts_at > _FACTS_KEPT:
            try:
                self._facts = await self.executor.facts(deadline=deadline.at_most(_FACTS_TIME))
            except (Unavailable, DeadlineExceeded):
                if self._facts is None:
                    raise
            else:
                self._facts_at = time.monotonic()
        return self._facts


class NodeRegistry:
    """By name."""

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
