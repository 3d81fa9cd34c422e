"""Which replicas reach which nodes, where those that follow them do not: said by a claim, `reaches/<node>`.

A node is asked only when the records say that it does not answer who follows it, each again after a while, and so many
at a time at most: a thousand that have vanished cost no more than a few.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.node import NodeFacts
from api_service.nodes.lease import LeaseTerms
from api_service.nodes.registry import Node, NodeRegistry
from api_service.records.node import NodeState
from api_service.store.claims import Claim, Claims
from common.errors import SlipwayError

_log = structlog.get_logger(__name__)

_AT_ONCE = 32  # nodes that are asked
_PREFIX = "reaches/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachTerms:
    """Seconds. `look`: between two looks at the same node. `answer`: for a node's answer. `patience`: how long another
    one reaches a node until it gets it. `keep`: how long a node stays at least with who got it, and who gave it away
    does not ask for it."""

    look: float
    answer: float
    patience: float
    keep: float


def reach_terms(lease: LeaseTerms) -> ReachTerms:
    """All of it together within half a lease: the other half has passed when a node that is silent is doubted, and what
    may run elsewhere is to run on."""
    ttl = lease.ttl
    return ReachTerms(
        look=min(2.0, ttl / 15), answer=min(2.0, ttl / 4), patience=min(3.0, ttl / 10), keep=min(10.0, ttl / 3)
    )


@dataclass(frozen=True, slots=True)
class _Said:
    claim: Claim
    leaving: AsyncExitStack


class Scout:
    """Run `scout_forever` and `look_forever` as tasks: the first says what this replica reaches and others do not, the
    second marks the nodes that this one follows and others reach instead of it."""

    def __init__(self, nodes: NodeRegistry, claims: Claims, terms: ReachTerms) -> None:
        self._nodes = nodes
        self._claims = claims
        self._terms = terms
        # Of the nodes that are to be asked: when that was last; negative: when they were noticed, if it was not yet.
        self._asked: dict[str, float] = {}
        self._said: dict[str, _Said] = {}
        self._reached_since: dict[str, float] = {}  # by others, of the nodes that we follow

    async def scout_forever(self) -> None:
        try:
            await self._again_and_again(self._scout)
        finally:
            for name in list(self._said):
                await self._take_back(name)

    async def look_forever(self) -> None:
        await self._again_and_again(self._look)

    async def _again_and_again(self, look: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(self._terms.look)
            try:
                await look()
            except SlipwayError as error:
                _log.warning("it is not known who reaches which node", error=error.message)
            except Exception as error:
                # A bug must not end the looking for good.
                _log.error("it is not known who reaches which node", exc_info=error)

    async def _scout(self) -> None:
        while due := await self._due():
            await asyncio.gather(*map(self._ask, due))
            if len(due) < _AT_ONCE:
                return

    async def _due(self) -> Sequence[Node]:
        """Those that were noticed last, then those that have not been asked for longest, so that one which has just
        vanished does not wait for many; none that another replica reaches."""
        away = {node.name: node for node in self._nodes.all() if _is_away(node)}
        others = await self._said_by_others() if away else frozenset()
        for name in self._said.keys() - away.keys():
            await self._take_back(name)
        now = time.monotonic()
        self._asked = {name: self._asked.get(name, -now) for name in away}
        due = [name for name in away.keys() - others if self._asked[name] <= now - self._terms.look]
        return [away[name] for name in sorted(due, key=self._asked.__getitem__)[:_AT_ONCE]]

    async def _said_by_others(self) -> Set[str]:
        said = await self._claims.held(_PREFIX)
        ours = self._claims.replica
        return {name.removeprefix(_PREFIX) for name, holder in said.items() if holder.replica != ours}

    async def _ask(self, node: Node) -> None:
        name = node.name
        try:
            facts = await node.executor.facts(deadline=Deadline.after(self._terms.answer))
            reached = self._is_its_own(node, facts)
        except SlipwayError:
            reached = False
        self._asked[name] = time.monotonic()
        said = self._said.get(name)
        if said is not None and (not reached or said.claim.lost.is_set()):
            await self._take_back(name)
        if reached and name not in self._said:
            await self._say(name)

    def _is_its_own(self, node: Node, facts: NodeFacts) -> bool:
        """Who follows it would refuse any other executor."""
        if node.record.executor_id:
            return node.record.executor_id == facts.node_id
        return all(other.record.executor_id != facts.node_id for other in self._nodes.all())

    async def _say(self, name: str) -> None:
        leaving = AsyncExitStack()
        try:
            claim = await leaving.enter_async_context(self._claims.try_hold(f"{_PREFIX}{name}"))
        except SlipwayError as error:
            _log.warning("not said that a node is reached", node=name, error=error.message)
            return
        if claim is None:  # another one says so
            await leaving.aclose()
            return
        _log.info("node reached, which another API service does not reach", node=name)
        self._said[name] = _Said(claim, leaving)

    async def _take_back(self, name: str) -> None:
        await self._said.pop(name).leaving.aclose()

    async def _look(self) -> None:
        away = [node for node in self._nodes.all() if node.follower.following and not node.follower.connected]
        others = await self._said_by_others() if away else frozenset()
        now = time.monotonic()
        before, self._reached_since = self._reached_since, {}
        for node in away:
            if node.name in others:
                self._reached_since[node.name] = before.get(node.name, now)
        for node in self._nodes.all():
            if now - self._reached_since.get(node.name, now) >= self._terms.patience:
                node.wanted_elsewhere.set()
            else:
                node.wanted_elsewhere.clear()


async def another_reaches(claims: Claims, node: Node) -> bool:
    """Whether a replica says that it reaches the node, which is on record as not answering, and it is not this one.
    Raises Unavailable."""
    if node.record.status.state is NodeState.READY:
        return False
    holder = await claims.holder(f"{_PREFIX}{node.name}")
    return holder is not None and holder.replica != claims.replica


def _is_away(node: Node) -> bool:
    return not node.follower.following and node.record.status.state is not NodeState.READY
