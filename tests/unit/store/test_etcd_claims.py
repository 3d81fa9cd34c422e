"""What claims on etcd promise beyond the Protocol: ended leases, copies that come late, what a new holder reads."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from etcdserverpb import etcd_service_pb2 as pb2

from api_service.etcd.claims import EtcdClaims
from api_service.etcd.client import Call, Member, txn_call
from api_service.etcd.cluster import open_cluster
from api_service.etcd.mirror import Mirror
from api_service.etcd.session import Session
from api_service.etcd.store import EtcdStore
from api_service.etcd.target import EtcdTarget, Layout
from api_service.store.store import Change, Put
from common.errors import Unavailable
from tests.fixtures.etcd import EtcdCluster
from tests.fixtures.lossy_etcd import LossyClient, lossy
from tests.fixtures.stores import PATIENCE, patiently

T = TypeVar("T")


async def test_lease_that_etcd_ended_is_replaced_and_its_claims_are_lost(
    etcd: EtcdCluster, etcd_target: EtcdTarget
) -> None:
    async with open_cluster(etcd_target) as cluster, cluster.claims.hold("x") as claim:
        lease = await cluster.claims._session.lease()
        etcd.control("lease", "revoke", f"{lease.id:x}")
        await patiently(cluster.store.commit(Put(key="k", value=b"")))
        assert claim.lost.is_set()
        assert cluster.claims.replica in await cluster.claims.replicas()
        async with asyncio.timeout(PATIENCE), open_cluster(etcd_target) as other, other.claims.hold("x") as theirs:
            assert not theirs.lost.is_set()


async def test_who_gets_a_claim_reads_what_its_last_holder_wrote(etcd_target: EtcdTarget) -> None:
    async with open_cluster(etcd_target) as one, open_cluster(etcd_target) as other:

        async def increment(store: EtcdStore, claims: Any) -> None:
            for _ in range(10):
                async with claims.hold("counter"):
                    entry = await store.get("counter")
                    number = int(entry.value) if entry else 0
                    await store.commit(Put(key="counter", value=str(number + 1).encode()))

        await patiently(asyncio.gather(*(increment(each.store, each.claims) for each in (one, other))))
        await one.store.catch_up()
        entry = await one.store.get("counter")
        assert entry is not None
        assert entry.value == b"20"


async def test_who_gets_a_claim_reads_what_was_committed_without_it(
    etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a request which takes one need not ask for the last commit besides."""
    changes = Mirror._changes

    async def late(mirror: Mirror, member: Member, *, after: int) -> AsyncIterator[tuple[int, list[Change]]]:
        async for each in changes(mirror, member, after=after):
            await asyncio.sleep(0.02)
            yield each

    async with open_cluster(etcd_target) as one:
        monkeypatch.setattr(Mirror, "_changes", late)
        async with open_cluster(etcd_target) as other:
            for number in range(5):
                written = await one.store.commit(Put(key="k", value=str(number).encode()))
                async with other.claims.hold(f"x{number}"):
                    entry = await other.store.get("k")
                    assert entry is not None
                    assert entry.revision == written


async def test_claims_are_released_together_and_none_keeps_the_others(etcd_target: EtcdTarget) -> None:
    stolen = pb2.RequestOp(request_delete_range=pb2.DeleteRangeRequest(key=Layout(etcd_target.prefix).claim("b")))
    async with open_cluster(etcd_target) as cluster:
        for steal in (False, True):
            async with AsyncExitStack() as held:
                for name in "abcd":
                    await held.enter_async_context(cluster.claims.hold(name))
                changes = cluster.claims._mirror.follow("", after=cluster.claims._mirror.revision)
                if steal:
                    await cluster.claims._client.call(txn_call(pb2.TxnRequest(success=[stolen])))
            released: dict[str, int] = {}
            async with asyncio.timeout(PATIENCE):
                while released.keys() != set("abcd"):
                    change = await anext(changes)
                    if change.value is None and change.key in "abcd":
                        released[change.key] = change.revision
            assert len(set(released.values())) == (4 if steal else 1)


async def test_a_claim_that_lingers_is_released_at_once_for_who_wants_it_here(
    etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.etcd.claims._LINGER", 3600)
    async with open_cluster(etcd_target) as cluster:
        for _ in range(3):
            async with asyncio.timeout(PATIENCE), cluster.claims.hold("x") as claim:
                assert not claim.lost.is_set()


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_claim_that_is_written_late_is_released(
    etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """By a member that hung with a request that was repeated elsewhere; also when changes could not be read once."""
    follow, failing = Mirror.follow, itertools.repeat(True, failures)

    def failing_follow(mirror: Mirror, prefix: str, *, after: int) -> AsyncIterator[Change]:
        if not prefix and next(failing, False):
            raise Unavailable("no member tells the changes")
        return follow(mirror, prefix, after=after)

    monkeypatch.setattr(Mirror, "follow", failing_follow)
    async with open_cluster(etcd_target) as cluster:
        async with cluster.claims.hold("x"):
            pass
        stray = await _stray(cluster.claims._session, Layout(etcd_target.prefix))
        await cluster.claims._client.call(txn_call(pb2.TxnRequest(success=[stray])))
        async with asyncio.timeout(PATIENCE), cluster.claims.hold("stray"):
            pass


async def test_a_claim_that_is_written_late_before_its_release_is_known_is_released(etcd_target: EtcdTarget) -> None:
    class LateClient(LossyClient):
        late: Call[Any] | None = None

        async def attempt(self, call: Call[T], *, until: float) -> T:
            answer = await super().attempt(call, until=until)
            if isinstance(answer, pb2.TxnResponse) and self.late is not None:
                late, self.late = self.late, None
                await super().attempt(late, until=until)
                await claims._mirror.reached(answer.header.revision + 1)
                written.set()
            return answer

    written = asyncio.Event()
    async with (
        LateClient(etcd_target) as client,
        Session(client) as session,
        EtcdStore(client, session) as store,
        EtcdClaims(client, session, included=store.included) as claims,
        open_cluster(etcd_target) as other,
    ):
        async with claims.hold("x"):
            client.late = client.sent[-1]  # it arrives once more just after the release
        await patiently(written.wait())
        async with asyncio.timeout(PATIENCE), other.claims.hold("x"):
            pass


async def test_a_claim_whose_making_is_told_after_its_release_is_released_once(
    etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, changes = asyncio.Event(), Mirror._changes

    async def late(mirror: Mirror, member: Member, *, after: int) -> AsyncIterator[tuple[int, list[Change]]]:
        async for each in changes(mirror, member, after=after):
            if mirror is claims._mirror:
                await told.wait()
            yield each

    monkeypatch.setattr(Mirror, "_changes", late)
    async with (
        lossy(etcd_target) as (client, session, store),
        EtcdClaims(client, session, included=store.included) as claims,
    ):
        async with claims.hold("x"):
            client.sent.clear()
        async with asyncio.timeout(PATIENCE):
            while not client.sent:  # the release is answered
                await asyncio.sleep(0.01)
        client.sent.clear()
        await client.call(txn_call(pb2.TxnRequest(success=[await _stray(session, Layout(etcd_target.prefix))])))
        told.set()
        async with asyncio.timeout(PATIENCE):
            while len(client.sent) < 2:
                await asyncio.sleep(0.01)
        # What is written late is released, one after the other: nothing was released before it.
        assert await claims.holder("stray") is None
        assert len(client.sent) == 2
        assert not claims._past, "what the watch has told of is forgotten"


async def _stray(session: Session, layout: Layout) -> pb2.RequestOp:
    """A claim of this process that nobody in it holds."""
    value = b'{"replica": "%s", "note": "", "id": "0"}' % session.replica.encode()
    lease = await session.lease()
    return pb2.RequestOp(request_put=pb2.PutRequest(key=layout.claim("stray"), value=value, lease=lease.id))


async def test_a_claim_that_was_released_is_had_although_its_watch_tells_nothing(
    etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have loaded again what there was after the release: that never gets to where the claim was taken."""
    monkeypatch.setattr("api_service.etcd.claims.CALL_TIME", 0.1)
    waiting = asyncio.Event()

    async def never(revision: int) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async with open_cluster(etcd_target) as one, open_cluster(etcd_target) as other:
        monkeypatch.setattr(other.claims._mirror, "reached", never)

        async def take() -> None:
            async with other.claims.hold("x"):
                pass

        async with one.claims.hold("x"):
            taking = asyncio.create_task(take())
            await patiently(waiting.wait())
        await patiently(taking)
