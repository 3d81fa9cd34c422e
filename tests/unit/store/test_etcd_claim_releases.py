"""Claims whose release etcd refuses, for a moment or for as long as their lease lives."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import pytest
from etcdserverpb import etcd_service_pb2 as pb2

from api_service.etcd.claims import EtcdClaims
from api_service.etcd.client import CALL_TIME, Call, EtcdClient, txn_call
from api_service.etcd.cluster import open_cluster
from api_service.etcd.session import Session
from api_service.etcd.store import EtcdStore
from api_service.etcd.target import EtcdTarget, Layout
from common.errors import Unavailable
from tests.fixtures.etcd import EtcdCluster
from tests.fixtures.stores import PATIENCE, patiently

T = TypeVar("T")

_FOREVER = sys.maxsize


class RefusingClient(EtcdClient):
    """Refuses as many calls as it is told to, as an etcd does that has too much to do or another role for us."""

    refuse = 0

    async def call(self, call: Call[T], *, time_limit: float = CALL_TIME) -> T:
        if self.refuse:
            self.refuse -= 1
            raise Unavailable("etcd is overloaded", reason="STORE_OVERLOADED")
        return await super().call(call, time_limit=time_limit)


@asynccontextmanager
async def _refusing(target: EtcdTarget) -> AsyncIterator[tuple[RefusingClient, Session, EtcdClaims]]:
    """What is refused are the calls of claims; the lease is renewed."""
    async with (
        EtcdClient(target) as client,
        Session(client) as session,
        EtcdStore(client, session) as store,
        RefusingClient(target) as refusing,
        EtcdClaims(refusing, session, included=store.included) as claims,
    ):
        yield refusing, session, claims


@pytest.mark.parametrize("word", ["", "done"])
async def test_others_get_what_could_not_be_released_for_a_moment(etcd_target: EtcdTarget, word: str) -> None:
    async with _refusing(etcd_target) as (client, _, claims), open_cluster(etcd_target) as other:
        async with AsyncExitStack() as held:
            for name in "abc":
                (await held.enter_async_context(claims.hold(name))).word = word
            client.refuse = 8
        for name in "abc":
            async with asyncio.timeout(PATIENCE), other.claims.hold(name) as claim:
                assert claim.inherited == word
        assert client.refuse == 0
        assert not claims._ours


async def test_it_is_had_again_here_as_well(etcd_target: EtcdTarget) -> None:
    async with _refusing(etcd_target) as (client, _, claims):
        async with claims.hold("x"):
            client.refuse = 3
        async with asyncio.timeout(PATIENCE), claims.hold("x") as claim:
            assert not claim.lost.is_set()


async def test_one_that_is_written_late_is_released_though_that_is_refused_for_a_moment(
    etcd_target: EtcdTarget,
) -> None:
    async with _refusing(etcd_target) as (client, session, claims), open_cluster(etcd_target) as other:
        value = b'{"replica": "%s", "note": "", "id": "0"}' % session.replica.encode()
        lease = await session.lease()
        late = pb2.PutRequest(key=Layout(etcd_target.prefix).claim("x"), value=value, lease=lease.id)
        client.refuse = 3
        await other.claims._client.call(txn_call(pb2.TxnRequest(success=[pb2.RequestOp(request_put=late)])))
        async with asyncio.timeout(PATIENCE), other.claims.hold("x"):
            assert client.refuse == 0
        assert not claims._ours


async def test_who_wants_it_here_is_told_why_it_is_not_to_be_had(
    etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.etcd.claims.CALL_TIME", 0.1)
    async with _refusing(etcd_target) as (client, _, claims):
        async with claims.hold("x"):
            client.refuse = _FOREVER
        with pytest.raises(Unavailable, match="overloaded"):
            async with asyncio.timeout(PATIENCE), claims.hold("x"):
                pass


async def test_it_is_left_to_the_lease_when_that_is_lost(
    etcd: EtcdCluster, etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.etcd.claims._RETRY", 0.01)
    async with _refusing(etcd_target) as (client, session, claims), open_cluster(etcd_target) as other:
        async with claims.hold("x"):
            client.refuse = _FOREVER
        lease = await session.lease()
        etcd.control("lease", "revoke", f"{lease.id:x}")
        async with asyncio.timeout(PATIENCE), other.claims.hold("x"):
            while claims._ours or claims._releasing:
                await asyncio.sleep(0.01)


async def test_the_end_of_the_process_does_not_wait_for_it(
    etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.etcd.claims._RETRY", 3600)
    async with open_cluster(etcd_target) as other:
        async with asyncio.timeout(PATIENCE), _refusing(etcd_target) as (client, _, claims):
            async with claims.hold("x"):
                client.refuse = 1
            await patiently(_refused(client))
        async with asyncio.timeout(PATIENCE), other.claims.hold("x"):
            pass


async def _refused(client: RefusingClient) -> None:
    while client.refuse:
        await asyncio.sleep(0.01)
