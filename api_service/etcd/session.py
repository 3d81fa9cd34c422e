"""This process in the cluster: a lease that is renewed while the process lives, and the keys that end with it.

A lease that could not be renewed in time is given up before etcd ends it, so that nobody goes on with what others may
have by then. Then another one is made, as soon as etcd answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import structlog
from etcdserverpb import etcd_service_pb2 as pb2

from api_service.etcd.client import CALL_TIME, Call, EtcdClient, Member, Metadata, txn_call, unreachable
from api_service.etcd.target import Layout
from common.errors import FailedPrecondition, SlipwayError

_log = structlog.get_logger(__name__)

LEASE = 10  # seconds; what a killed process held is free after that
_RENEW = 2.0  # seconds between renewals
_MARGIN = 1.0  # seconds before its end at which a lease is given up
_RETRY = 0.5  # seconds


@dataclass(slots=True, kw_only=True, eq=False)
class LeaseHeld:
    """`ends`: on the monotonic clock, when we give it up. `lost` is set when it has ended, or may have."""

    id: int
    ends: float
    lost: asyncio.Event = field(default_factory=asyncio.Event)


class Session:
    """Use as an async context manager; leaving it ends the lease at once."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._layout = Layout(client.target.prefix)
        self.replica = secrets.token_hex(8)
        self._lease: LeaseHeld | None = None
        self._given_up = 0  # the lease before this one
        self._changed = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._begin()
        self._renewing = asyncio.create_task(self._renew_forever(), name="renew the lease")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._renewing is not None
        self._renewing.cancel()
        await asyncio.wait([self._renewing])
        if (lease := self._lease) is not None:
            self._lose(lease)
            with contextlib.suppress(SlipwayError):
                await self._client.call(_revoke(lease.id), time_limit=1.0)

    async def lease(self) -> LeaseHeld:
        """The one we hold. Raises Unavailable when there is none for too long."""
        try:
            async with asyncio.timeout(CALL_TIME):
                while self._lease is None:
                    await self._changed.wait()
                return self._lease
        except TimeoutError as error:
            raise unreachable("this process has no lease") from error

    def ended(self, lease: LeaseHeld) -> None:
        """etcd does not know it any more."""
        if self._lease is lease:
            self._lose(lease)

    async def _renew_forever(self) -> None:
        while True:
            try:
                await self._keep(self._lease or await self._begin())
            except SlipwayError as error:
                _log.warning("no lease", error=error.message, retry_in=_RETRY)
                await asyncio.sleep(_RETRY)
            except Exception as error:
                # A bug must not end the renewing for good.
                _log.error("lease not renewed", exc_info=error)
                await asyncio.sleep(_RETRY)

    async def _begin(self) -> LeaseHeld:
        lease = LeaseHeld(id=secrets.randbits(62) + 1, ends=time.monotonic() + LEASE - _MARGIN)
        with contextlib.suppress(FailedPrecondition):  # it was made by an attempt whose answer was lost
            await self._client.call(_grant(lease.id))
        key = self._layout.replica(self.replica)
        present = pb2.RequestOp(request_put=pb2.PutRequest(key=key, lease=lease.id))
        await self._client.call(txn_call(pb2.TxnRequest(success=[present])))
        self._lease = lease
        self._wake()
        if self._given_up:  # etcd may know it still, and what we held under it
            with contextlib.suppress(SlipwayError):
                await self._client.call(_revoke(self._given_up), time_limit=LEASE)
            self._given_up = 0
        return lease

    async def _keep(self, lease: LeaseHeld) -> None:
        """Until it has ended."""
        while not lease.lost.is_set():
            begun = time.monotonic()
            alive = False
            with contextlib.suppress(TimeoutError, SlipwayError):
                async with asyncio.timeout(lease.ends - begun):
                    alive = await self._client.call(_renewal(lease.id), time_limit=LEASE)
            if not alive:
                _log.warning("lease lost", replica=self.replica)
                self._lose(lease)
                return
            lease.ends = begun + LEASE - _MARGIN
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RENEW):
                    await lease.lost.wait()
        self.ended(lease)

    def _lose(self, lease: LeaseHeld) -> None:
        self._lease, self._given_up = None, lease.id
        lease.lost.set()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _grant(lease: int) -> Call[pb2.LeaseGrantResponse]:
    def call(member: Member, metadata: Metadata, seconds: float) -> Awaitable[pb2.LeaseGrantResponse]:
        request = pb2.LeaseGrantRequest(ID=lease, TTL=LEASE)
        return member.lease.LeaseGrant(request, timeout=seconds, metadata=metadata)

    return call


def _revoke(lease: int) -> Call[pb2.LeaseRevokeResponse]:
    def call(member: Member, metadata: Metadata, seconds: float) -> Awaitable[pb2.LeaseRevokeResponse]:
        return member.lease.LeaseRevoke(pb2.LeaseRevokeRequest(ID=lease), timeout=seconds, metadata=metadata)

    return call


def _renewal(lease: int) -> Call[bool]:
    """Whether there is still such a lease."""

    async def call(member: Member, metadata: Metadata, seconds: float) -> bool:
        request = iter([pb2.LeaseKeepAliveRequest(ID=lease)])
        async for answer in member.lease.LeaseKeepAlive(request, timeout=seconds, metadata=metadata):
            return answer.TTL > 0
        return False

    return call
