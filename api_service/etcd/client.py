"""Calls to etcd that find a member which answers.

One member is used at a time, by calls and watches alike. One that fails or is late is left for the next, by everything
that uses it: a member that hangs still accepts connections, and what only watches would never notice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

import grpc
from etcdserverpb import etcd_service_pb2 as pb2
from etcdserverpb import etcd_service_pb2_grpc as pb2_grpc

from api_service.etcd.target import EtcdTarget, KeyRange, read_file
from api_service.store.store import STORE_FULL
from common.errors import (
    FailedPrecondition,
    Internal,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    SlipwayError,
    Unavailable,
)

T = TypeVar("T")

CALL_TIME = 8.0  # seconds; an election takes one or two, a leader that hangs is noticed after _ATTEMPT
_ATTEMPT = 2.0  # seconds that one member has for an answer
_PAUSE = 0.1  # seconds between rounds of all members
STORE_UNREACHABLE = "STORE_UNREACHABLE"
_RETRY_AFTER = 2.0  # seconds

_OPTIONS = [
    # Pings more often than every 10 s draw GOAWAY; without the timeouts a member that hangs was noticed after a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
_OTHER_MEMBER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)


class MemberFailedError(Exception):
    """One member did not answer. Whether it did what was asked is unknown."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """A connection to one member. `left` is set when another one is used from now on."""

    endpoint: str
    channel: grpc.aio.Channel
    left: asyncio.Event = field(default_factory=asyncio.Event)
    kv: pb2_grpc.KVStub = field(init=False)
    watch: pb2_grpc.WatchStub = field(init=False)
    lease: pb2_grpc.LeaseStub = field(init=False)
    auth: pb2_grpc.AuthStub = field(init=False)

    def __post_init__(self) -> None:
        self.kv = pb2_grpc.KVStub(self.channel)
        self.watch = pb2_grpc.WatchStub(self.channel)
        self.lease = pb2_grpc.LeaseStub(self.channel)
        self.auth = pb2_grpc.AuthStub(self.channel)


Metadata = tuple[tuple[str, str], ...]
Call = Callable[[Member, Metadata, float], Awaitable[T]]
"""Makes one call: to this member, with this metadata, within so many seconds."""


class EtcdClient:
    """Use as an async context manager."""

    def __init__(self, target: EtcdTarget) -> None:
        self._target = target
        self._at = 0
        self._members: dict[str, Member] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._token = ""
        self._authenticating = asyncio.Lock()

    @property
    def target(self) -> EtcdTarget:
        return self._target

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members.values():
            member.left.set()
            await member.channel.close()
        for task in self._closing:
            task.cancel()
        if self._closing:
            await asyncio.wait(self._closing)

    async def call(self, call: Call[T], *, time_limit: float = CALL_TIME) -> T:
        """Of what may be done twice: at one member after the other until one has answered. Raises Unavailable
        (`STORE_UNREACHABLE`), and what `attempt` raises."""
        deadline = time.monotonic() + time_limit
        failed = 0
        while True:
            try:
                return await self.attempt(call, until=deadline)
            except MemberFailedError as error:
                failed += 1
                await self.pause(failed, until=deadline, error=error)

    async def pause(self, failed: int, *, until: float, error: MemberFailedError) -> None:
        """Before the next attempt. Raises Unavailable when there is no time for it."""
        if failed % len(self._target.endpoints) == 0:
            await asyncio.sleep(_PAUSE)
        if time.monotonic() >= until:
            raise unreachable(str(error)) from error

    async def attempt(self, call: Call[T], *, until: float) -> T:
        """At one member. Raises MemberFailedError, and a SlipwayError for what another one would not do either."""
        member = self.member()
        seconds = max(min(_ATTEMPT, until - time.monotonic()), 0.05)
        try:
            metadata = await self.metadata(member)
            try:
                return await call(member, metadata, seconds)
            except grpc.aio.AioRpcError as error:
                if not self._rejected(metadata, error):
                    raise
                return await call(member, await self.metadata(member), seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() in _OTHER_MEMBER:
                self.leave(member)
                raise MemberFailedError(f"{member.endpoint}: {error.details() or error.code().name}") from error
            raise refusal(error) from error
        except grpc.aio.UsageError as error:  # somebody else has left the member meanwhile
            raise MemberFailedError(f"{member.endpoint}: {error}") from error

    async def watch(self, member: Member, keys: KeyRange, *, after: int) -> AsyncGenerator[pb2.WatchResponse]:
        """The changes of those keys, without end, and last of all why there are no more. Raises MemberFailedError."""
        request = pb2.WatchCreateRequest(key=keys.begin, range_end=keys.end, start_revision=after + 1)
        try:
            metadata = await self.metadata(member)
            call = member.watch.Watch(metadata=metadata)
            try:
                async with asyncio.timeout(_ATTEMPT):
                    await call.write(pb2.WatchRequest(create_request=request))
                    answer = await call.read()
                while isinstance(answer, pb2.WatchResponse):
                    if answer.canceled and not answer.compact_revision:
                        self._forget_token(metadata)
                        raise MemberFailedError(f"{member.endpoint}: {answer.cancel_reason or 'the watch was ended'}")
                    yield answer
                    answer = await call.read()
            finally:
                call.cancel()
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError, TimeoutError) as error:
            self.leave(member)
            why = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            raise MemberFailedError(f"{member.endpoint}: {why or 'it did not begin the watch'}") from error
        self.leave(member)
        raise MemberFailedError(f"{member.endpoint}: the watch was ended")

    def member(self) -> Member:
        """The one in use."""
        endpoint = self._target.endpoints[self._at]
        if (member := self._members.get(endpoint)) is None:
            member = self._members[endpoint] = self._connect(endpoint)
        return member

    def leave(self, member: Member) -> None:
        """For the next one, unless that has happened already."""
        if self._members.get(self._target.endpoints[self._at]) is not member:
            return
        self._at = (self._at + 1) % len(self._target.endpoints)
        member.left.set()
        # What is under way there has its own end; whoever comes back later finds a new connection, and the files of
        # today.
        del self._members[member.endpoint]
        task = asyncio.create_task(member.channel.close(grace=2 * CALL_TIME))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def metadata(self, member: Member) -> Metadata:
        """Raises AioRpcError."""
        if not self._target.user:
            return ()
        async with self._authenticating:
            if not self._token:
                request = pb2.AuthenticateRequest(name=self._target.user, password=self._target.password())
                self._token = (await member.auth.Authenticate(request, timeout=_ATTEMPT)).token
        return (("token", self._token),)

    def _rejected(self, metadata: Metadata, error: grpc.aio.AioRpcError) -> bool:
        """Whether the token has ended, or users were changed since; then the next metadata have another."""
        details = error.details() or ""
        if not metadata or not ("invalid auth token" in details or "revision of auth store is old" in details):
            return False
        self._forget_token(metadata)
        return True

    def _forget_token(self, metadata: Metadata) -> None:
        if metadata == (("token", self._token),):
            self._token = ""

    def _connect(self, endpoint: str) -> Member:
        target = self._target
        if target.authority is None:
            channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=read_file(target.authority),
                private_key=read_file(target.key) if target.key is not None else None,
                certificate_chain=read_file(target.certificate) if target.certificate is not None else None,
            )
            channel = grpc.aio.secure_channel(endpoint, credentials, options=_OPTIONS)
        return Member(endpoint=endpoint, channel=channel)


def unreachable(why: str) -> Unavailable:
    return Unavailable(
        f"etcd does not answer, or has no majority ({why}); repeat the request",
        reason=STORE_UNREACHABLE,
        retry_after=_RETRY_AFTER,
    )


def refusal(error: grpc.aio.AioRpcError) -> SlipwayError:
    """What an answer of etcd means to a caller."""
    details = error.details() or error.code().name
    match error.code():
        case grpc.StatusCode.RESOURCE_EXHAUSTED if "space exceeded" in details:
            why = "is full; remove containers, compact and defragment it, or raise --quota-backend-bytes"
            return ResourceExhausted(f"etcd {why} ({details})", reason=STORE_FULL)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Unavailable(f"etcd is overloaded ({details})", reason="STORE_OVERLOADED", retry_after=_RETRY_AFTER)
        case grpc.StatusCode.NOT_FOUND:
            return NotFound(f"etcd: {details}")
        case grpc.StatusCode.FAILED_PRECONDITION:
            return FailedPrecondition(f"etcd: {details}")
        case grpc.StatusCode.OUT_OF_RANGE:
            return OutOfRange(f"etcd: {details}")
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED | grpc.StatusCode.INVALID_ARGUMENT:
            why = "refuses this service; look at its user, password and role"
            return Unavailable(f"etcd {why} ({details})", reason="STORE_REFUSES", retry_after=_RETRY_AFTER)
        case _:
            return Internal(f"etcd: {details}", reason="STORE_ERROR")


def txn_call(request: pb2.TxnRequest) -> Call[pb2.TxnResponse]:
    def call(member: Member, metadata: Metadata, seconds: float) -> Awaitable[pb2.TxnResponse]:
        return member.kv.Txn(request, timeout=seconds, metadata=metadata)

    return call


def range_call(request: pb2.RangeRequest) -> Call[pb2.RangeResponse]:
    def call(member: Member, metadata: Metadata, seconds: float) -> Awaitable[pb2.RangeResponse]:
        return member.kv.Range(request, timeout=seconds, metadata=metadata)

    return call
