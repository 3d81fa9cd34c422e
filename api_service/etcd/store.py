"""The store on etcd: commits are transactions there, reads come from a mirror in memory.

A read costs nothing, then, and many records are listed as on one machine. That a request sees what was acknowledged
anywhere before it came is `catch_up`'s doing: one linearisable read of one small key, shared by all requests that come
meanwhile, says how far the mirror has to be. What was committed here is waited for in the same manner.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from api_service.etcd.client import CALL_TIME, EtcdClient, unreachable
from api_service.etcd.freshness import Freshness
from api_service.etcd.mirror import Mirror
from api_service.etcd.session import LeaseHeld, Session
from api_service.etcd.target import Layout
from api_service.etcd.transaction import LeaseEndedError, Outcome, Slot, Transaction
from api_service.store.key_space import QUOTA, RESERVE, check_operations, check_room
from api_service.store.store import Change, Delete, Entry, Put, Store
from common.errors import Unavailable

_MAX_COMMITS = 64  # of this process at the same time


class EtcdStore:
    """Use as an async context manager. `history_limit`, `quota`, `reserve`: as of SqliteStore. `on_replaced` is called,
    with why, when etcd is not the one that it was: what was read before is of another history, whose revisions may come
    again and mean something else."""

    def __init__(
        self,
        client: EtcdClient,
        session: Session,
        *,
        history_limit: int = 100_000,
        quota: int = QUOTA,
        reserve: int = RESERVE,
        on_replaced: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._client = client
        self._session = session
        self._layout = Layout(client.target.prefix)
        self._mirror = Mirror(client, self._layout.records, history_limit=history_limit, on_replaced=on_replaced)
        self._freshness = Freshness(client, self._mirror, self._layout.head)
        self._quota = quota
        self._reserve = reserve
        self._commits = asyncio.Semaphore(_MAX_COMMITS)
        self._slots_of: LeaseHeld | None = None
        self._slots: list[Slot] = []  # not in use
        self._numbers = itertools.count()
        self._lifetime = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._mirror)
            await stack.enter_async_context(self._freshness)
            self._lifetime = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._lifetime.aclose()

    async def get(self, key: str) -> Entry | None:
        return self._mirror.keys.get(key)

    async def list(self, prefix: str, *, limit: int = 0, after_key: str = "") -> Sequence[Entry]:
        return self._mirror.keys.list(prefix, limit=limit, after_key=after_key)

    async def revision(self) -> int:
        return self._mirror.revision

    async def catch_up(self) -> bool:
        return await self._freshness.catch_up()

    async def changes(self, prefix: str, *, after: int) -> tuple[Sequence[Change], int] | None:
        return self._mirror.recent(prefix, after=after)

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Change]:
        return self._mirror.follow(prefix, after=after)

    async def commit(self, *operations: Put | Delete) -> int:
        check_operations(operations)
        check_room(self._mirror.keys, operations, quota=self._quota, reserve=self._reserve, where="etcd")
        if not operations:
            return self._mirror.revision
        async with self._commits:
            outcome = await self._run(operations, until=time.monotonic() + CALL_TIME)
        if outcome.before is None or not self._mirror.anticipate(outcome.before, outcome.revision, outcome.changes):
            await self.included(outcome.revision)
        if outcome.conflict is not None:
            raise outcome.conflict
        return outcome.revision

    async def included(self, revision: int) -> None:
        """Until reads include the commit of this revision. Raises Unavailable."""
        try:
            async with asyncio.timeout(CALL_TIME):
                await self._mirror.reached(revision)
        except TimeoutError as error:
            raise unreachable("the change was made, but its watch does not tell of it") from error

    async def _run(self, operations: Sequence[Put | Delete], *, until: float) -> Outcome:
        while True:
            lease = await self._session.lease()
            slot = self._slot(lease)
            try:
                return await Transaction(self._layout, lease, slot, operations).run(self._client, until=until)
            except LeaseEndedError as error:
                self._session.ended(lease)
                if not error.certain:
                    why = "was cut off from etcd for too long to know whether the change was made; look, and repeat"
                    raise Unavailable(f"the API service {why}", reason="STORE_LEASE_LOST", retry_after=1.0) from error
                if time.monotonic() > until:
                    raise unreachable("it ends our leases") from error
            finally:
                if self._slots_of is lease:
                    self._slots.append(slot)

    def _slot(self, lease: LeaseHeld) -> Slot:
        if self._slots_of is not lease:
            self._slots_of, self._slots = lease, []
        return self._slots.pop() if self._slots else Slot(self._layout.slot(lease.id, next(self._numbers)))


_: type[Store] = EtcdStore
