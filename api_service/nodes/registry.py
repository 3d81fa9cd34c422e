"""The nodes this service deals with, as the records have them. One machine has one, `local`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.client import ExecutorClient
from api_service.executor_client.journal import JournalEntry
from api_service.executor_client.node import NodeFacts
from api_service.nodes.journal_follower import JournalFollower
from api_service.nodes.observer import Observer
from api_service.records.container import JournalPosition
from api_service.records.node import NodeRecord, NodeState
from common.errors import DeadlineExceeded, NotFound, Unavailable

_log = structlog.get_logger(__name__)

_JOURNAL_PATIENCE = 1.0  # seconds an answer waits for the journal to tell the same
_PUT_RIGHT_AT_ONCE = 16  # containers
_FACTS_KEPT = 30.0  # seconds
_FACTS_TIME = 5.0  # seconds to ask for them


class Node:
    """One node: its executor, and its journal's way into the records. `wanted_elsewhere`: this service follows it and
    does not reach it, and another one does. `exchangeable`: whichever executor answers is the node's."""

    def __init__(
        self,
        *,
        record: NodeRecord,
        executor: ExecutorClient,
        follower: JournalFollower,
        observer: Observer,
        exchangeable: bool = False,
    ) -> None:
        self.exchangeable = exchangeable
        self._record = record
        self.executor = executor
        self.follower = follower
        self.wanted_elsewhere = asyncio.Event()
        self._observer = observer
        self._putting_right = asyncio.Semaphore(_PUT_RIGHT_AT_ONCE)
        self._silent_at: JournalPosition | None = None  # how far the journal was told when waiting for it was in vain
        self._facts: NodeFacts | None = None
        self._facts_at = 0.0
        self._tell_executor()

    @property
    def record(self) -> NodeRecord:
        return self._record

    @record.setter
    def record(self, record: NodeRecord) -> None:
        """Whenever it changes."""
        was_ready = _is_ready(self._record)
        self._record = record
        self._tell_executor()
        if _is_ready(record) and not was_ready and not self.follower.following:
            self.executor.connect_anew()  # who follows it has just made one

    def _tell_executor(self) -> None:
        if not self.exchangeable:
            self.executor.meant_for(self._record.executor_id)
        self.executor.expect(ready=_is_ready(self._record))

    @property
    def name(self) -> str:
        return self.record.name

    async def settle(self, entry: JournalEntry) -> None:
        """Get the entry of an answer into the records.

        What happened before it is told before it: when it is not the journal's very next entry, the journal is waited
        for, unless it is not being followed. Where another replica follows the journal, it is given the same time, but
        not again while it has told nothing since it let somebody wait in vain: it may be dead, with its claim not free
        yet. One that does not say which journal it belongs to is left to that, which would tell it again.
        """
        if not entry.journal_id:
            _log.warning("answer left to the journal", node=self.name, container=entry.container_id)
            return
        if not self.follower.following:
            reached = await self.follower.saved()
            patience = 0 if reached is not None and reached == self._silent_at else _JOURNAL_PATIENCE
            if not await self._observer.told(entry, patience=patience):
                self._silent_at = reached
                await self._observer.observe([entry])
            return
        position = JournalPosition(journal_id=entry.journal_id, sequence=entry.sequence)
        with self.follower.ahead(entry) as is_next:
            # What the journal or a snapshot has reached is in the records, and told.
            if is_next or not await self.follower.told(position, patience=_JOURNAL_PATIENCE):
                await self._observer.observe([entry])

    async def put_right(self, work: Callable[[], Awaitable[None]]) -> None:
        """When a node comes back there may be something to do for each of a thousand containers of it: in turn, beside
        what clients ask of the node."""
        async with self._putting_right:
            await work()

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


def _is_ready(record: NodeRecord) -> bool:
    return record.status.state is NodeState.READY


class NodeRegistry:
    """By name. Nodes come and go while the service runs."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._changed = asyncio.Event()

    def add(self, node: Node) -> None:
        self._nodes = dict(sorted({**self._nodes, node.name: node}.items()))
        self._wake()

    def discard(self, name: str) -> None:
        self._nodes = {known: node for known, node in self._nodes.items() if known != name}
        self._wake()

    def get(self, name: str) -> Node:
        """Raises NotFound for a node that was removed or configured away."""
        node = self._nodes.get(name)
        if node is None:
            raise NotFound(
                f"this service deals with no node {name!r}: it was removed, or is that of another service's settings; "
                "NodeService.AddNode takes it in",
                resource_type="node",
                resource_name=name,
            )
        return node

    def find(self, name: str) -> Node | None:
        return self._nodes.get(name)

    def all(self) -> Sequence[Node]:
        """Ordered by name."""
        return tuple(self._nodes.values())

    def sole(self) -> Node | None:
        """The only one there is, where nothing has to be chosen."""
        return next(iter(self._nodes.values())) if len(self._nodes) == 1 else None

    async def until_several(self) -> None:
        """Wait until there are at least two."""
        while len(self._nodes) < 2:
            await self._changed.wait()

    async def until(self, name: str, *, present: bool, patience: float) -> bool:
        """Wait until the node is among them, or not any more; False after `patience` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while (name in self._nodes) != present:
                    await self._changed.wait()
        return (name in self._nodes) == present

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
