"""How far the mirror has to be for a request that must not see less than what was acknowledged before it came.

While etcd does not answer, nobody's commit is acknowledged either, unless it is only we who are cut off. Requests then
go on with what is known, after the first of them has waited for an election's time, and etcd is asked again until it
answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import structlog
from etcdserverpb import etcd_service_pb2 as pb2

from api_service.etcd.client import EtcdClient, range_call
from api_service.etcd.mirror import Mirror
from common.errors import SlipwayError

_log = structlog.get_logger(__name__)

_PATIENCE = 3.0  # seconds
_LOOKS = 10  # in that time
_ASK_AGAIN = 0.5  # seconds
_UNKNOWN = -1


class Freshness:
    """Use as an async context manager."""

    def __init__(self, client: EtcdClient, mirror: Mirror, head: bytes) -> None:
        self._client = client
        self._mirror = mirror
        self._head = head
        self._waiting: list[asyncio.Future[int]] = []
        self._wanted = asyncio.Event()
        self._silent = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._answer_forever(), name="ask etcd for its last commit")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        for waiter in self._waiting:
            waiter.cancel()

    async def catch_up(self) -> bool:
        """See `Store.catch_up`."""
        if self._silent:
            return False
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._wanted.set()
        try:
            async with _patience():
                latest = await waiter
                await self._mirror.reached(latest)
            return latest != _UNKNOWN
        except TimeoutError:
            self._silent = True
            self._wanted.set()
            return False

    async def _answer_forever(self) -> None:
        """One question at a time: who comes while one is on its way needs the next one."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            try:
                latest = await self._latest()
                _answer(waiting, latest)
                if self._silent:
                    async with _patience():
                        await self._mirror.reached(latest)
                    self._silent = False
                    _log.info("etcd answers again", revision=latest)
                continue
            except SlipwayError as error:
                if not self._silent:
                    _log.warning("etcd does not answer: reads may be behind", error=str(error))
            except TimeoutError:
                self._client.leave(self._client.member())  # it answers, and does not tell of changes
            except Exception as error:
                # A bug must not have every request to come wait for an answer that nobody asks for.
                _log.error("etcd was not asked for its last commit: reads may be behind", exc_info=error)
            self._silent = True
            _answer(waiting, _UNKNOWN)
            await asyncio.sleep(_ASK_AGAIN)
            self._wanted.set()

    async def _latest(self) -> int:
        """The revision of the last commit there is; 0: there is none."""
        answer = await self._client.call(range_call(pb2.RangeRequest(key=self._head)))
        return answer.kvs[0].mod_revision if answer.kvs else 0


@asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """For `_PATIENCE` seconds in which this process listened: however long it was busy with something else, that counts
    as one look, and what has come meanwhile is heard at the next. Raises TimeoutError."""
    loop, each, looks = asyncio.get_running_loop(), _PATIENCE / _LOOKS, 0
    async with asyncio.timeout(None) as scope:
        looking = loop.call_later(each, lambda: look())

        def look() -> None:
            nonlocal looks, looking
            looks += 1
            if looks == _LOOKS:
                scope.reschedule(loop.time())
            else:
                looking = loop.call_later(each, look)

        try:
            yield
        finally:
            looking.cancel()


def _answer(waiting: Iterable[asyncio.Future[int]], latest: int) -> None:
    for waiter in waiting:
        if not waiter.done():
            waiter.set_result(latest)
