"""A node's lease, from this side: renewed by who follows the node, and known to be over when nobody could have.

Each answer brings the node's word of when it was given, and the next renewal counts from there. So a renewal that is on
its way for however long extends nothing beyond the answer before it was sent: `ttl` after an answer has come, and a
margin for clocks that run at different speeds and for the killing of what runs, the lease is over there. Who hands the
node to another replica says how much of that time is left, a length and no moment, so handing it to and fro puts
nothing off. A node keeps the longest lease that it has got, so `ttl` here is the longest that any service has promised,
which is on record before it is promised.
Source: C. Gray, D. Cheriton, Leases, 1989.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from api_service.deadline import Deadline
from api_service.nodes.lease_promise import LeasePromise
from api_service.nodes.registry import Node
from common.errors import DeadlineExceeded, SlipwayError, Unavailable

_log = structlog.get_logger(__name__)

_RENEWALS = 4  # in the time of one lease
_LONGEST_RETRY = 1.0  # seconds
_CHANCE = 0.1  # of the time of one lease


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """Seconds. `ttl`: of each renewal. `margin`: how much longer is waited until the lease counts as over."""

    ttl: float = 30.0
    margin: float = 10.0

    def term(self, promised: float = 0.0) -> float:
        """From the last answer until the lease counts as over. `promised`: what another service may have given."""
        return (self.ttl + self.margin) * max(1.0, promised / self.ttl)


class NodeLease:
    """Run `hold_forever` as a task while the node's journal is ours to follow.

    `on_lost` is awaited when the lease is over and the node does not answer, or gets none, again and again while that
    is so, whatever becomes of it; it gets the seconds after which that is so.
    """

    def __init__(
        self, node: Node, terms: LeaseTerms, promise: LeasePromise, *, on_lost: Callable[[float], Awaitable[None]]
    ) -> None:
        self._node = node
        self._terms = terms
        self._promise = promise
        self._on_lost = on_lost
        self._promised = 0.0
        self._over_at = self._inherited_over_at = float("inf")
        self._heard_at = 0.0
        self._introduced = asyncio.Event()
        self._withheld = ""
        self._word = ""
        self._removing = asyncio.Lock()

    @asynccontextmanager
    async def introduction(self) -> AsyncIterator[None]:
        """Around the removal of what must not run there any more; after it the lease may be renewed, unless it is
        withheld. What is on its way elsewhere has left by then, and meanwhile nothing else leaves, so all of it is
        removed. Raises what the store raises."""
        async with self._removing:
            if self._promised < self._terms.ttl:
                await self._put_promise()
            self._withheld = ""
            yield
            if not self._withheld:
                self._introduced.set()

    def withhold(self, why: str) -> None:
        """Within an introduction: what must not run there may do so yet. The node gets no lease before another
        introduction has ended without this; one that is in force goes on."""
        self._withheld = why

    @property
    def withheld(self) -> str:
        """Why the node gets no lease though it answers; empty when that is not so."""
        return "" if self._introduced.is_set() else self._withheld

    async def inherit(self, left: str) -> None:
        """Before each `hold_forever`, with what the holder before has left. Who does not know when that one has renewed
        it waits as long as if it had been this moment; who does gets the time to reach the node at least once. Raises
        what the store raises."""
        self._introduced.clear()
        self._withheld = ""
        self._promised = await self._promise.longest()
        seconds = self._terms.term(self._promised)
        if left:
            seconds = min(seconds, max(float(left), self._terms.ttl * _CHANCE))
        self._over_at = self._inherited_over_at = time.monotonic() + seconds

    def left(self) -> str:
        """For the next holder, when this one renews nothing any more: seconds until the lease counts as over."""
        return f"{max(0.0, self._over_at - time.monotonic()):.3f}"

    async def hold_forever(self) -> None:
        self._word = ""
        self._heard_at = time.monotonic()
        while True:
            renewed = await self._renew() if self._introduced.is_set() else False
            if renewed:
                await self._forget_longer_promise()
            withheld, connected = self.withheld != "", self._node.follower.connected
            if not renewed and (withheld or not connected) and time.monotonic() > self._over_at:
                await self._lose()
            elif connected and not withheld and not self._introduced.is_set():
                # It was on its way back when it was lost.
                self._node.follower.interrupt(Unavailable("its lease was over, so what has left it may be there still"))
            await self._pause(self._terms.ttl / _RENEWALS if renewed else min(self._retry(), _LONGEST_RETRY))

    async def _pause(self, seconds: float) -> None:
        """Cut short by the introduction: the node is told to be ready then, and what is marked may not run before."""
        if self._introduced.is_set():
            await asyncio.sleep(seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._introduced.wait()

    async def _lose(self) -> None:
        self._introduced.clear()
        async with self._removing:
            if self._introduced.is_set():  # it is back
                return
            try:
                await self._on_lost(self._terms.term(self._promised))
            except SlipwayError as error:
                _log.warning("lost node not dealt with, trying again", node=self._node.name, error=error.message)

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
        self._heard_at = time.monotonic()
        self._over_at = max(self._heard_at + self._terms.term(), self._inherited_over_at)
        return had_word or await self._renew()

    async def _forget_longer_promise(self) -> None:
        """Of another service, when it is over. The next renewal does not wait for a store that hangs."""
        if self._promised > self._terms.ttl and time.monotonic() > self._inherited_over_at:
            with suppress(TimeoutError, SlipwayError):
                async with asyncio.timeout(self._terms.ttl / _RENEWALS):
                    await self._put_promise()

    async def _put_promise(self) -> None:
        await self._promise.put(self._terms.ttl)
        self._promised = self._terms.ttl

    def _doubt(self, error: SlipwayError) -> None:
        """After half a lease a journal that is open and silent is that of a node which is frozen, or cut off."""
        since = time.monotonic() - self._heard_at
        if since > self._terms.ttl / 2 and isinstance(error, Unavailable | DeadlineExceeded):
            self._node.follower.interrupt(error)

    def _retry(self) -> float:
        return self._terms.ttl / (4 * _RENEWALS)
