"""A range of etcd's keys in memory: loaded once, then kept up by a watch that resumes where it broke off.

What was seen last is known by its revision, so a watch that begins again, at whichever member, neither misses nor
repeats a change. When etcd has forgotten the changes since then, the range is loaded again, and whoever followed it is
told that the cursor is gone. So it is when etcd is another one than before, or was restored from a backup; but then
what is remembered of revisions may be of others by the same numbers, and whoever made the mirror is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from itertools import groupby
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog
from etcdserverpb import etcd_service_pb2 as pb2
from mvccpb import kv_pb2

from api_service.etcd.client import CALL_TIME, EtcdClient, Member, MemberFailedError, range_call, unreachable
from api_service.etcd.target import KeyRange
from api_service.store.change_feed import ChangeFeed, cursor_gone
from api_service.store.key_space import KeySpace
from api_service.store.store import Change, Entry
from common.errors import OutOfRange, SlipwayError

T = TypeVar("T")

_log = structlog.get_logger(__name__)

_PAGE = 1000  # keys
_RECENT_REVISIONS = 4096
_RECENT_BYTES = 8 * 1024 * 1024
_BATCH_CHANGES = 512
_BATCH_BYTES = 2 * 1024 * 1024
_PAUSE = 0.1  # seconds before a watch that failed begins again


class _CompactedError(Exception):
    pass


class _ReplacedError(Exception):
    pass


class Mirror:
    """Use as an async context manager; entering it loads the range. `history_limit` revisions are kept for followers,
    as far as nobody else has etcd forget them."""

    def __init__(
        self,
        client: EtcdClient,
        keys: KeyRange,
        *,
        history_limit: int,
        on_replaced: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._client = client
        self._range = keys
        self._history_limit = history_limit
        self._on_replaced = on_replaced
        self._keys = KeySpace()
        self._feed = self._make_feed(0)
        self._cluster = 0
        self._seen = 0  # the revision up to which the watch has told everything
        self._advanced = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @property
    def keys(self) -> KeySpace:
        return self._keys

    @property
    def revision(self) -> int:
        """The last of this range's that is in memory."""
        return self._feed.revision

    def recent(self, prefix: str, *, after: int) -> tuple[Sequence[Change], int] | None:
        """See `Store.changes`."""
        return self._feed.recent(prefix, after=after)

    def follow(self, prefix: str, *, after: int) -> AsyncIterator[Change]:
        """See `Store.watch`."""
        return self._feed.follow(prefix, after=after)

    async def __aenter__(self) -> Self:
        self._feed = self._make_feed(await self._load())
        self._watching = asyncio.create_task(self._watch_forever(), name="watch etcd")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watching is not None
        self._watching.cancel()
        await asyncio.wait([self._watching])
        self._feed.close()

    async def reached(self, revision: int) -> None:
        """Wait until the changes up to this revision, which has to be one of this range's, are in memory."""
        while self._feed.revision < revision:
            await self._advanced.wait()

    def anticipate(self, before: int, revision: int, changes: Sequence[Change]) -> bool:
        """Take what a commit of this range changed before the watch tells of it, if all up to the commit `before` it is
        there. `before` and `revision` follow each other in this range."""
        if self.revision != before or self._seen > revision:
            return False
        self._take(revision, changes)
        return True

    def _take(self, revision: int, changes: Sequence[Change]) -> None:
        self._keys.apply(changes)
        self._seen = revision
        self._feed.append(revision, changes)
        self._wake()

    async def _load(self) -> int:
        """All keys as one revision has them. Returns the last revision of the range itself: what else etcd counts is no
        commit of ours."""
        while True:
            try:
                header, found = await self._pages()
                break
            except OutOfRange as error:
                _log.info("etcd has forgotten the revision that was being loaded, loading again", error=error.message)
        self._keys = KeySpace(
            Entry(key=name, value=kv.value, revision=kv.mod_revision)
            for kv in found
            if (name := self._range.name(kv.key)) is not None
        )
        self._seen, self._cluster = header.revision, header.cluster_id
        return max((kv.mod_revision for kv in found), default=header.revision)

    async def _pages(self) -> tuple[pb2.ResponseHeader, Sequence[kv_pb2.KeyValue]]:
        """With the header of the first, whose revision all of them show. Raises OutOfRange when etcd forgets that
        meanwhile."""
        page = first = await self._page(self._range.begin, revision=0)
        found = list(page.kvs)
        while page.more:
            page = await self._page(page.kvs[-1].key + b"\0", revision=first.header.revision)
            found += page.kvs
        return first.header, found

    async def _page(self, begin: bytes, *, revision: int) -> pb2.RangeResponse:
        request = pb2.RangeRequest(key=begin, range_end=self._range.end, limit=_PAGE, revision=revision)
        return await self._client.call(range_call(request))

    async def _watch_forever(self) -> None:
        while True:
            try:
                await self._watch()
            except (_CompactedError, _ReplacedError) as error:
                _log.warning("etcd cannot tell what changed, loading again", seen=self._seen, error=str(error))
                with contextlib.suppress(SlipwayError):
                    self._feed.jump(await self._load())
                    self._wake()
                    if isinstance(error, _ReplacedError):
                        self._on_replaced(str(error))
            except (SlipwayError, MemberFailedError) as error:
                _log.info("watch of etcd broken off", error=str(error), retry_in=_PAUSE)
            except Exception as error:
                # A bug must not end the watch for good.
                _log.error("watch of etcd failed", exc_info=error)
            await asyncio.sleep(_PAUSE)

    async def _watch(self) -> None:
        """Until the member fails, or another one is used."""
        member = self._client.member()
        await _while_used(member, self._keep_up(member))

    async def _keep_up(self, member: Member) -> None:
        await self._check_history()
        async with contextlib.aclosing(self._changes(member, after=self._seen)) as commits:
            async for revision, changes in commits:
                if revision > self._seen:  # else it was anticipated
                    self._take(revision, changes)

    async def _check_history(self) -> None:
        """Raises _ReplacedError. A watch from a revision that is yet to come would begin, and tell nothing."""
        seen = self._seen  # now: commits of ours move it on while this is asked
        request = pb2.RangeRequest(key=self._range.begin)
        header = (await self._client.call(range_call(request))).header  # of a majority: no member that lags behind
        self._check_cluster(header)
        if header.revision < seen:
            raise _ReplacedError(f"it was at revision {seen} and is at {header.revision}: a backup was restored")

    def _check_cluster(self, header: pb2.ResponseHeader) -> None:
        if self._cluster != header.cluster_id:
            raise _ReplacedError("it is another cluster than before")

    async def _changes(self, member: Member, *, after: int) -> AsyncGenerator[tuple[int, list[Change]]]:
        """What each revision changed, without end. Raises MemberFailedError, _CompactedError, _ReplacedError."""
        async with contextlib.aclosing(self._client.watch(member, self._range, after=after)) as answers:
            async for answer in answers:
                self._check_cluster(answer.header)
                if answer.compact_revision:
                    raise _CompactedError(f"it has forgotten what was before revision {answer.compact_revision}")
                for revision, events in groupby(answer.events, key=lambda event: event.kv.mod_revision):
                    yield revision, [change for event in events if (change := self._change(event)) is not None]

    def _change(self, event: kv_pb2.Event) -> Change | None:
        name = self._range.name(event.kv.key)
        if name is None:
            return None
        value = event.kv.value if event.type == kv_pb2.Event.PUT else None
        return Change(key=name, value=value, revision=event.kv.mod_revision)

    async def _read_history(self, prefix: str, after: int, upto: int) -> tuple[Sequence[Change], int]:
        """See `HistoryReader`."""
        deadline = time.monotonic() + CALL_TIME
        failed = 0
        while True:
            try:
                member = self._client.member()
                return await _while_used(member, self._batch(member, prefix, after, upto))
            except MemberFailedError as error:
                failed += 1
                await self._client.pause(failed, until=deadline, error=error)
            except _CompactedError as error:
                raise cursor_gone(after, self._feed.floor) from error
            except _ReplacedError as error:
                raise unreachable(str(error)) from error

    async def _batch(self, member: Member, prefix: str, after: int, upto: int) -> tuple[Sequence[Change], int]:
        found: list[Change] = []
        size, complete = 0, after
        async with contextlib.aclosing(self._changes(member, after=after)) as commits:
            async for complete, changes in commits:
                for change in changes:
                    if change.key.startswith(prefix):
                        found.append(change)
                        size += len(change.key) + len(change.value or b"")
                if complete >= upto or len(found) >= _BATCH_CHANGES or size >= _BATCH_BYTES:
                    break
        return found, complete

    def _make_feed(self, revision: int) -> ChangeFeed:
        return ChangeFeed(
            revision=revision,
            oldest=1,
            history_limit=self._history_limit,
            max_revisions=min(_RECENT_REVISIONS, self._history_limit),
            max_bytes=_RECENT_BYTES,
            history=self._read_history,
        )

    def _wake(self) -> None:
        self._advanced.set()
        self._advanced = asyncio.Event()


async def _while_used(member: Member, work: Coroutine[Any, Any, T]) -> T:
    """What only watches does not notice that the member hangs: others do. Raises MemberFailedError when they left it,
    and what `work` raises."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(member.left.wait())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait((working, leaving))
    if working.cancelled():
        raise MemberFailedError(f"{member.endpoint}: another member is used instead")
    return working.result()
