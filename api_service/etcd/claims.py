"""Claims on etcd: a key that exists once, under the lease of who holds it, behind a queue of this process's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import starmap
from types import TracebackType
from typing import Any, Self

import structlog
from etcdserverpb import etcd_service_pb2 as pb2
from mvccpb import kv_pb2

from api_service.etcd.client import CALL_TIME, EtcdClient, range_call, txn_call
from api_service.etcd.mirror import Mirror
from api_service.etcd.session import LeaseHeld, Session
from api_service.etcd.target import Layout, after_prefix
from api_service.etcd.transaction import compare_revision, read
from api_service.store.claims import Claim, Claims, Holder, LocalClaims
from api_service.store.store import Change
from common.errors import NotFound, OutOfRange, SlipwayError

_log = structlog.get_logger(__name__)

_HISTORY = 10_000  # revisions
_LOOK_EVERY = 2.0  # seconds
_LINGER = 0.005  # seconds until what was held is released
_RELEASED_TOGETHER = 100  # in one transaction
_RETRY = 0.5  # seconds until a release that etcd refused is asked for again


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """Somebody else has it, since that revision."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ours:
    """We have it, under that lease and since that revision."""

    lease: LeaseHeld
    revision: int
    claim: Claim


class EtcdClaims:
    """Use as an async context manager. `included` waits until reads of the store include a revision: who gets a claim
    reads what its last holder has committed."""

    def __init__(self, client: EtcdClient, session: Session, *, included: Callable[[int], Awaitable[None]]) -> None:
        self._client = client
        self._session = session
        self._included = included
        self._layout = Layout(client.target.prefix)
        self._mirror = Mirror(client, self._layout.claims, history_limit=_HISTORY)
        self._queues = LocalClaims()
        self._ours: dict[bytes, LeaseHeld] = {}  # by the values of claims that we hold, ask for or release
        self._past: dict[bytes, int] = {}  # when what was ours was released, until the watch has told of that
        self._known: Set[str] = frozenset()  # as `departed` has seen them last
        self._lingering: dict[str, bytes] = {}  # values, by the names of claims that are to be released
        self._releasing: dict[asyncio.Task[None], Set[str]] = {}
        self._flushing: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def replica(self) -> str:
        return self._session.replica

    async def __aenter__(self) -> Self:
        await self._mirror.__aenter__()
        self._sweeping = asyncio.create_task(self._release_strays(), name="release stray claims")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sweeping is not None
        tasks = {self._sweeping, *self._releasing, *filter(None, [self._flushing])}
        for task in tasks:
            task.cancel()  # the session ends the lease, and all claims with it
        await asyncio.wait(tasks)
        await self._mirror.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def hold(self, name: str, *, note: str = "") -> AsyncIterator[Claim]:
        async with self._queues.hold(name):
            value, taken = self._value(note), None
            try:
                while isinstance(taken := await self._take(name, value), _Taken):
                    await self._released(name, taken)
                yield taken.claim
            finally:
                self._release(name, value, taken)

    @asynccontextmanager
    async def try_hold(self, name: str, *, note: str = "") -> AsyncIterator[Claim | None]:
        async with self._queues.try_hold(name) as ours:
            if ours is None:
                yield None
                return
            value, taken = self._value(note), None
            try:
                taken = await self._take(name, value)
                yield None if isinstance(taken, _Taken) else taken.claim
            finally:
                self._release(name, value, taken)

    async def holder(self, name: str) -> Holder | None:
        answer = await self._client.call(range_call(pb2.RangeRequest(key=self._layout.claim(name))))
        return _holder(answer.kvs[0]) if answer.kvs else None

    async def held(self, prefix: str) -> Mapping[str, Holder]:
        begin = self._layout.claim(prefix)
        answer = await self._client.call(range_call(pb2.RangeRequest(key=begin, range_end=after_prefix(begin))))
        keys = self._layout.claims
        return {name: _holder(kv) for kv in answer.kvs if (name := keys.name(kv.key)) is not None}

    async def replicas(self) -> Set[str]:
        keys = self._layout.replicas
        answer = await self._client.call(range_call(pb2.RangeRequest(key=keys.begin, range_end=keys.end)))
        return {name for kv in answer.kvs if (name := keys.name(kv.key)) is not None} | {self.replica}

    async def departed(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            with contextlib.suppress(SlipwayError):
                known, self._known = self._known, await self.replicas()
                if known - self._known:
                    return

    async def _take(self, name: str, value: bytes) -> _Ours | _Taken:
        """The word goes with the taking. Who takes it by a second copy of the transaction gets none, which is safe."""
        if (lingering := self._lingering.pop(name, None)) is not None:
            self._begin({name}, self._delete(name, lingering))
        if releasing := [task for task, names in self._releasing.items() if name in names]:
            await asyncio.wait(releasing, timeout=CALL_TIME)  # then etcd says itself why there is no claim
        key, word = self._layout.claim(name), self._layout.word(name)
        while True:
            lease = self._ours[value] = await self._session.lease()
            put = pb2.RequestOp(request_put=pb2.PutRequest(key=key, value=value, lease=lease.id))
            request = pb2.TxnRequest(
                compare=[compare_revision(key, 0)],
                success=[put, read(self._layout.head), read(word), _deletion(word)],
                failure=[read(key), read(self._layout.head)],
            )
            try:
                answer = await self._client.call(txn_call(request))
            except NotFound:
                self._session.ended(lease)
                continue
            claim, revision = Claim(name=name, lost=lease.lost), answer.header.revision
            if answer.succeeded:
                for left in answer.responses[2].response_range.kvs:
                    claim.inherited = left.value.decode()
            else:
                [held] = answer.responses[0].response_range.kvs
                revision = held.mod_revision
                if held.value != value:
                    return _Taken(revision=revision)
            for head in answer.responses[1].response_range.kvs:
                await self._included(head.mod_revision)
            return _Ours(lease=lease, revision=revision, claim=claim)

    async def _released(self, name: str, taken: _Taken) -> None:
        """Or until the watch has begun anew, or does not get to where the claim was taken: looking again tells."""
        with contextlib.suppress(OutOfRange, TimeoutError):
            async with asyncio.timeout(CALL_TIME):
                await self._mirror.reached(taken.revision)
            async for change in self._mirror.follow(name, after=taken.revision):
                if change.key == name and change.value is None:
                    return

    def _value(self, note: str) -> bytes:
        return json.dumps({"replica": self.replica, "note": note, "id": secrets.token_hex(8)}).encode()

    def _release(self, name: str, value: bytes, taken: _Ours | _Taken | None) -> None:
        """Without waiting; who wants it next in this process does. What needs no hurry lingers a little: the answer to
        whoever held it goes first, and what else is released meanwhile goes along."""
        if value not in self._ours:
            return  # it was not asked for, as there was no lease
        if not isinstance(taken, _Ours):
            self._begin({name}, self._delete(name, value))
        elif taken.claim.word:
            self._begin({name}, self._leave(name, value, taken))
        else:
            self._lingering[name] = value
            if self._flushing is None:
                self._flushing = asyncio.create_task(self._flush(), name="release claims")

    async def _flush(self) -> None:
        await asyncio.sleep(_LINGER)
        going, self._lingering, self._flushing = list(self._lingering.items()), {}, None
        for begin in range(0, len(going), _RELEASED_TOGETHER):
            part = dict(going[begin : begin + _RELEASED_TOGETHER])
            self._begin(part.keys(), self._delete_together(part))

    def _begin(self, names: Set[str], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"release {', '.join(names)}")
        self._releasing[task] = names
        task.add_done_callback(self._releasing.pop)

    async def _delete_together(self, values: Mapping[str, bytes]) -> None:
        """One after the other when they are not all there any more."""
        keys = {self._layout.claim(name): value for name, value in values.items()}
        request = pb2.TxnRequest(compare=list(starmap(_is_still, keys.items())), success=list(map(_deletion, keys)))
        if (answer := await self._insist(values, request)) is not None and answer.succeeded:
            self._ended(values, answer)
        elif answer is not None:
            await asyncio.gather(*starmap(self._delete, values.items()))

    async def _delete(self, name: str, value: bytes) -> None:
        key = self._layout.claim(name)
        await self._end(name, value, pb2.TxnRequest(compare=[_is_still(key, value)], success=[_deletion(key)]))

    async def _leave(self, name: str, value: bytes, ours: _Ours) -> None:
        """With a word for the next one, which goes with our lease. A copy that comes late finds another revision."""
        key, word = self._layout.claim(name), ours.claim.word.encode()
        put = pb2.PutRequest(key=self._layout.word(name), value=word, lease=ours.lease.id)
        leave = [_deletion(key), pb2.RequestOp(request_put=put)]
        await self._end(name, value, pb2.TxnRequest(compare=[compare_revision(key, ours.revision)], success=leave))

    async def _end(self, name: str, value: bytes, request: pb2.TxnRequest) -> None:
        if (answer := await self._insist({name: value}, request)) is not None:
            self._ended({name: value}, answer)

    async def _insist(self, values: Mapping[str, bytes], request: pb2.TxnRequest) -> pb2.TxnResponse | None:
        """Until etcd does it; None when the leases are lost under which these are claimed. It may refuse for a moment,
        and a claim that is left goes with a lease which this process renews as long as it lives."""
        while True:
            try:
                return await self._client.call(txn_call(request))
            except SlipwayError as error:
                why = {"claims": sorted(values), "error": error.message}
            if all(self._ours[value].lost.is_set() for value in values.values()):
                _log.warning("claims not released, they go with the lease", **why)
                for value in values.values():
                    del self._ours[value]
                return None
            _log.warning("claims not released", **why, retry_in=_RETRY)
            await asyncio.sleep(_RETRY)

    def _ended(self, values: Mapping[str, bytes], answer: pb2.TxnResponse) -> None:
        """They are ours no more. What was written late, but before this is known, `_release_strays` took for ours."""
        revision = answer.header.revision
        if answer.succeeded:
            self._past.update(dict.fromkeys(values.values(), revision))
        for name, value in values.items():
            found = self._mirror.keys.get(name)
            if found is not None and found.value == value and found.revision > revision:
                self._begin({name}, self._delete(name, value))
            else:
                del self._ours[value]

    def _was_ours(self, change: Change) -> bool:
        """Whether this was released after it was written: the watch may tell of the writing later than etcd answers to
        the release."""
        released = self._past.get(change.value or b"", 0)
        while self._past and self._past[oldest := next(iter(self._past))] <= change.revision:
            del self._past[oldest]
        return change.revision < released

    async def _release_strays(self) -> None:
        """A claim that was asked for again after a lost answer may be written once more, by a member that hung, after
        it was released."""
        after = self._mirror.revision
        while True:
            try:
                async for change in self._mirror.follow("", after=after):
                    after = change.revision
                    if self._was_ours(change) or change.value is None or change.value in self._ours:
                        continue
                    if _replica_of(change.value) == self.replica:
                        self._ours[change.value] = await self._session.lease()
                        await self._delete(change.key, change.value)
            except OutOfRange:
                after = self._mirror.revision
            except SlipwayError as error:
                _log.warning("late claims not looked for", error=error.message, retry_in=_LOOK_EVERY)
                await asyncio.sleep(_LOOK_EVERY)


def _deletion(key: bytes) -> pb2.RequestOp:
    return pb2.RequestOp(request_delete_range=pb2.DeleteRangeRequest(key=key))


def _is_still(key: bytes, value: bytes) -> pb2.Compare:
    return pb2.Compare(result=pb2.Compare.EQUAL, target=pb2.Compare.VALUE, key=key, value=value)


def _holder(kv: kv_pb2.KeyValue) -> Holder:
    about = json.loads(kv.value)
    return Holder(replica=about["replica"], note=about["note"])


def _replica_of(value: bytes) -> str:
    replica: str = json.loads(value)["replica"]
    return replica


_: type[Claims] = EtcdClaims
