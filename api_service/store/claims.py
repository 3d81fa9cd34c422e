"""What one process of a cluster holds at a time: the journal of a node, a container while a verb runs, a housekeeping.

A claim lives as long as the process that holds it: whoever is killed, or cut off for too long, loses all of its claims,
and others get them. Where there is one process for one store, claims are queues in its memory.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Set
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from common.errors import Unavailable

_log = structlog.get_logger(__name__)

_RETRY = 1.0  # seconds until a claim that the store could not give is asked for again


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds a claim, and the word it gave for what it does with it."""

    replica: str
    note: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class Claim:
    """`lost` is set when the claim may have become somebody else's: stop what depends on it. `inherited`: the word that
    the one who held it just before has left; empty when it left none. `word`: what is left to who holds it next when
    the block ends, in the same step as the claim itself, so nobody ever gets one that is not of the last holder."""

    name: str
    inherited: str = ""
    word: str = ""
    lost: asyncio.Event = field(default_factory=asyncio.Event)


class Claims(Protocol):
    """Claims of one process. Names are paths, `journal/<node>`. Nobody's claim is held twice, also not by one process:
    whoever comes second waits, in the order of coming as far as it is one process's."""

    @property
    def replica(self) -> str:
        """This process's id: another one at each start."""

    def hold(self, name: str, *, note: str = "") -> AbstractAsyncContextManager[Claim]:
        """Wait until the name is ours; leaving the block releases it, without waiting for that, which others see some
        milliseconds later. What is read inside includes every commit that was acknowledged before, as after
        `Store.catch_up`. Raises Unavailable when the store cannot be reached."""

    def try_hold(self, name: str, *, note: str = "") -> AbstractAsyncContextManager[Claim | None]:
        """As `hold`, but None at once when somebody else has it."""

    async def holder(self, name: str) -> Holder | None:
        """None: nobody holds it."""

    async def held(self, prefix: str) -> Mapping[str, Holder]:
        """Who holds each of the claims whose names begin so."""

    async def replicas(self) -> Set[str]:
        """The processes that are alive, this one included. One that died may be among them for some seconds."""

    async def departed(self) -> None:
        """Wait until a process that was alive is not any more."""


async def run_claimed(claims: Claims, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work` while the claim is ours, and from its beginning each time it becomes ours again, until it ends by
    itself. It is cancelled, and has ended, before the claim is asked for again."""
    while True:
        try:
            async with claims.hold(name) as claim:
                if await until_lost(claim, work):
                    return
            _log.warning("claim lost", claim=name)
        except Unavailable as error:
            _log.warning("claim not to be had", claim=name, error=error.message, retry_in=_RETRY)
            await asyncio.sleep(_RETRY)


async def until_lost(claim: Claim, work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Run `work` until it ends by itself, which is true, or the claim is lost. Raises what it raised."""
    lost, working = asyncio.create_task(claim.lost.wait()), asyncio.create_task(work(), name=claim.name)
    try:
        await asyncio.wait((lost, working), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = working.done()
        for task in (lost, working):
            task.cancel()
        await asyncio.wait((lost, working))
    if ended:
        await working
    return ended


@dataclass(slots=True)
class _Held:
    holder: Holder
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class LocalClaims:
    """For a store that one process owns. `beside` makes a second replica of it, as if it were another process."""

    def __init__(self, *, beside: LocalClaims | None = None) -> None:
        self._replica = secrets.token_hex(8)
        self._held: dict[str, _Held] = beside._held if beside is not None else {}
        self._words: dict[str, str] = beside._words if beside is not None else {}
        self._replicas: set[str] = beside._replicas if beside is not None else set()
        self._replicas.add(self._replica)

    @property
    def replica(self) -> str:
        return self._replica

    @asynccontextmanager
    async def hold(self, name: str, *, note: str = "") -> AsyncIterator[Claim]:
        holder = Holder(replica=self._replica, note=note)
        if (held := self._held.get(name)) is None:
            self._held[name] = _Held(holder=holder)
        else:
            await _turn(held, lambda: self._pass_on(name))
            held.holder = holder
        claim = Claim(name=name, inherited=self._words.pop(name, ""))
        try:
            yield claim
        finally:
            if claim.word:
                self._words[name] = claim.word
            self._pass_on(name)

    @asynccontextmanager
    async def try_hold(self, name: str, *, note: str = "") -> AsyncIterator[Claim | None]:
        if name in self._held:
            yield None
            return
        async with self.hold(name, note=note) as claim:
            yield claim

    async def holder(self, name: str) -> Holder | None:
        held = self._held.get(name)
        return held.holder if held is not None else None

    async def held(self, prefix: str) -> Mapping[str, Holder]:
        return {name: held.holder for name, held in self._held.items() if name.startswith(prefix)}

    async def replicas(self) -> Set[str]:
        return frozenset(self._replicas)

    async def departed(self) -> None:
        await asyncio.Event().wait()

    def _pass_on(self, name: str) -> None:
        """To who has waited longest; nobody waits: it is free."""
        waiting = self._held[name].waiting
        while waiting:
            if not (next_one := waiting.popleft()).done():
                next_one.set_result(None)
                return
        del self._held[name]


async def _turn(held: _Held, pass_on: Callable[[], None]) -> None:
    turn = asyncio.get_running_loop().create_future()
    held.waiting.append(turn)
    try:
        await turn
    except asyncio.CancelledError:
        if turn.done() and not turn.cancelled():
            pass_on()  # it had become ours in the moment of leaving
        raise


_: type[Claims] = LocalClaims
