"""Who follows a node: one replica at a time, and one that reaches it.

The claim `journal/<node>` stays with its holder while it reaches the node, and while nobody does. When another one
reaches the node instead it gets the claim, with the time that is left of the node's lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from api_service.nodes.lease import NodeLease
from api_service.nodes.reach import ReachTerms, another_reaches
from api_service.nodes.registry import Node
from api_service.store.claims import Claim, Claims, until_lost
from common.errors import Unavailable

_log = structlog.get_logger(__name__)

_RETRY = 1.0  # seconds until a claim that the store could not give is asked for again


class NodeTurns:
    """Run `take_forever` as a task. `attend`: the work of who follows the node; it does not end by itself."""

    def __init__(
        self,
        node: Node,
        lease: NodeLease,
        *,
        claims: Claims,
        terms: ReachTerms,
        attend: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._node = node
        self._lease = lease
        self._claims = claims
        self._terms = terms
        self._attend = attend
        self._let_past = False

    async def take_forever(self) -> None:
        while True:
            try:
                async with self._claims.hold(f"journal/{self._node.name}") as claim:
                    given_away = await self._take(claim)
            except Unavailable as error:
                _log.warning("node not to be followed", node=self._node.name, error=error.message, retry_in=_RETRY)
                await asyncio.sleep(_RETRY)
                continue
            except Exception as error:
                # A bug must not end the following of a node for good.
                _log.error("following a node failed", node=self._node.name, exc_info=error)
                await asyncio.sleep(_RETRY)
                continue
            if given_away:
                _log.warning("node left to an API service that reaches it", node=self._node.name)
                await asyncio.sleep(self._terms.keep)  # else it would be ours again before the other one has seen it
            else:
                _log.warning("node not ours to follow any more", node=self._node.name)

    async def _take(self, claim: Claim) -> bool:
        """Whether it was given away, which is not lost."""
        await self._lease.inherit(claim.inherited)
        # Of all who waited for the claim this one may have come first: once, it lets the one past that it is meant for.
        self._let_past = not self._let_past and await another_reaches(self._claims, self._node)
        given_away = self._let_past or await until_lost(claim, self._attend_until_wanted_elsewhere)
        if given_away:
            claim.word = self._lease.left()
        return given_away

    async def _attend_until_wanted_elsewhere(self) -> None:
        async with asyncio.TaskGroup() as group:
            attending = group.create_task(self._attend(), name=f"attend to {self._node.name}")
            await asyncio.sleep(self._terms.keep)
            await self._node.wanted_elsewhere.wait()
            attending.cancel()
