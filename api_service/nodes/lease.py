"""A node's lease, from this side: renewed by who follows the node, and known to be over when nobody could have.

Each answer brings the node's word of when it was given, and the next renewal counts from there. So a renewal that is on
its way for however long extends nothing beyond the answer before it was sent: `ttl` after an answer has come, and a
margin for clocks that run at different speeds and for the killing of what runs, the lease is over there.
Source: C. Gray, D. Cheriton, Leases, 1989.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from api_service.deadline import Deadline
from api_service.nodes.registry import Node
from common.errors import DeadlineExceeded, SlipwayError, Unavailable

_log = structlog.get_logger(__name__)

_RENEWALS = 4  # in the time of one lease
_LONGEST_RETRY = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """Seconds. `margin`: how much longer than `ttl` is waited until the lease counts as over."""

    ttl: float = 30.0
    margin: float = 10.0


class NodeLease:
    """Run `hold_forever` as a task while the node's journal is ours to follow.

    Who begins to hold it cannot know what the holder before has promised, and waits as long as if it had been this
    moment. `on_lost` is awaited when the lease is over and the node does not answer, again and again while that is so.
    """

    def __init__(self, node: Node, terms: LeaseTerms, *, on_lost: Callable[[], Awaitable[None]]) -> None:
        self._node = node
        self._terms = terms
        self._on_lost = on_lost
        self._over_at = float("inf")
        self._introduced = False
        self._word = ""

    def introduced(self) -> None:
        """What must not run there any more has been removed: the lease may be renewed."""
        self._introduced = True

    async def hold_forever(self) -> None:
        self._word = ""
        self._introduced = False
        self._over_at = self._whole_term()
        while True:
            renewed = await self._renew() if self._introduced else False
            if not renewed and not self._node.follower.connected and time.monotonic() > self._over_at:
                self._introduced = False
                await self._on_lost()
            await asyncio.sleep(self._terms.ttl / _RENEWALS if renewed else min(self._retry(), _LONGEST_RETRY))

    async def _renew(self) -> bool:
        """Twice when the first answer was only to get the node's word."""
        had_word = self._word != ""
        try:
            limit = Deadline.after(self._terms.ttl / _RENEWALS)
            self._word = await self._node.executor.renew_lease(self._word, ttl=self._terms.ttl, deadline=limit)
        except SlipwayError as error:
            _log.debug("lease not renewed", node=self._node.name, error=error.message)
            self._doubt(error)
            return False
        self._over_at = self._whole_term()
        return had_word or await self._renew()

    def _doubt(self, error: SlipwayError) -> None:
        """After half a lease a journal that is open and silent is that of a node which is frozen, or cut off."""
        since = time.monotonic() - (self._over_at - self._terms.ttl - self._terms.margin)
        if since > self._terms.ttl / 2 and isinstance(error, Unavailable | DeadlineExceeded):
            self._node.follower.interrupt(error)

    def _whole_term(self) -> float:
        return time.monotonic() + self._terms.ttl + self._terms.margin

    def _retry(self) -> float:
        return self._terms.ttl / (4 * _RENEWALS)
