"""What the store on etcd promises beyond the Protocol: lost answers, lost leases, other replicas, TLS and users."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme
from etcdserverpb import etcd_service_pb2 as pb2

from api_service.etcd.claims import EtcdClaims
from api_service.etcd.client import Call, EtcdClient, Member, MemberFailedError, txn_call
from api_service.etcd.cluster import Cluster, open_cluster
from api_service.etcd.mirror import Mirror
from api_service.etcd.session import Session
from api_service.etcd.store import EtcdStore
from api_service.etcd.target import EtcdTarget, Layout
from api_service.store.store import Change, Delete, Put, RevisionConflict
from common.errors import OutOfRange, Unavailable
from tests.fixtures.etcd import EtcdCluster, etcd_cluster

T = TypeVar("T")

_PATIENCE = 60  # seconds until a test that waits has failed


class LossyClient(EtcdClient):
    """Loses the answers of as many transactions as it is told to, which happened all the same; keeps all of them."""

    def __init__(self, target: EtcdTarget) -> None:
        super().__init__(target)
        self.lose = 0
        self.sent: list[Call[Any]] = []

    async def attempt(self, call: Call[T], *, until: float) -> T:
        answer = await super().attempt(call, until=until)
        if isinstance(answer, pb2.TxnResponse):
            self.sent.append(call)
            if self.lose:
                self.lose -= 1
                raise MemberFailedError("the answer is lost")
        return answer


@asynccontextmanager
async def lossy(target: EtcdTarget) -> AsyncIterator[tuple[LossyClient, Session, EtcdStore]]:
    async with LossyClient(target) as client, Session(client) as session, EtcdStore(client, session) as store:
        yield client, session, store


async def patiently(work: Awaitable[T]) -> T:
    async with asyncio.timeout(_PATIENCE):
        return await work


@pytest.mark.parametrize("lost", [1, 3])
async def test_commit_whose_answer_is_lost_happens_once(etcd_target: EtcdTarget, lost: int) -> None:
    async with lossy(etcd_target) as (client, _, store):
        begin = await store.revision()
        client.lose = lost
        revision = await store.commit(Put(key="name", value=b"a", expected_revision=0), Put(key="event", value=b""))
        entry = await store.get("name")
        assert entry is not None
        assert entry.revision == revision == begin + 1
        changes = store.watch("", after=begin)
        assert [(await patiently(anext(changes))).key for _ in range(2)] == ["name", "event"]
        assert await store.commit(Put(key="next", value=b"")) == revision + 1


async def test_conflict_whose_answer_is_lost_stays_one(etcd_target: EtcdTarget) -> None:
    async with lossy(etcd_target) as (client, _, store):
        held = await store.commit(Put(key="name", value=b"a"))
        client.lose = 1
        with pytest.raises(RevisionConflict) as caught:
            await store.commit(Put(key="name", value=b"b", expected_revision=0))
        assert caught.value.current is not None
        assert caught.value.current.revision == held


async def test_a_transaction_that_arrives_late_does_nothing(etcd_target: EtcdTarget) -> None:
    """Of a member that hung with it, say, while another one did it."""
    async with lossy(etcd_target) as (client, _, store):
        client.sent.clear()  # the session's own
        for value in (b"1", b"2", b"3"):
            await store.commit(Put(key="k", value=value))
        latest = await store.revision()
        for call in list(client.sent):
            await client.call(call)
        assert await store.commit(Put(key="end", value=b"")) == latest + 1
        entry = await store.get("k")
        assert entry is not None
        assert entry.value == b"3"


async def test_cancelled_commits_hinder_no_later_ones(etcd_target: EtcdTarget) -> None:
    async with lossy(etcd_target) as (_, _, store):
        for number in range(20):
            commit = asyncio.create_task(store.commit(Put(key=f"k{number}", value=b"")))
            await asyncio.sleep(0.0005 * (number % 5))
            commit.cancel()
            await asyncio.wait([commit])
            await patiently(store.commit(Put(key=f"after{number}", value=b"", expected_revision=0)))
        assert len(await store.list("after")) == 20


async def test_a_word_that_was_left_is_never_left_again(etcd_target: EtcdTarget) -> None:
    """Neither when the leaving is done once more, late, nor when the answer to the taking is lost."""
    async with (
        lossy(etcd_target) as (client, session, store),
        EtcdClaims(client, session, included=store.included) as claims,
        open_cluster(etcd_target) as other,
    ):
        async with claims.hold("x") as claim:
            claim.word = "first"
        async with other.claims.hold("x") as claim:
            assert claim.inherited == "first"
        leaving = client.sent[-1]
        async with claims.hold("x"):
            await client.call(leaving)
            assert await other.claims.holder("x") is not None
        await client.call(leaving)
        async with other.claims.hold("x") as claim:
            assert claim.inherited == ""
            claim.word = "second"
        while await other.claims.holder("x") is not None:
            await asyncio.sleep(0.01)
        client.lose = 1
        async with claims.hold("x") as claim:
            assert claim.inherited == ""  # it came with the answer that was lost
        async with other.claims.hold("x") as claim:
            assert claim.inherited == ""


async def test_lease_that_etcd_ended_is_replaced_and_its_claims_are_lost(
    etcd: EtcdCluster, etcd_target: EtcdTarget
) -> None:
    async with open_cluster(etcd_target) as cluster, cluster.claims.hold("x") as claim:
        lease = await cluster.claims._session.lease()
        etcd.control("lease", "revoke", f"{lease.id:x}")
        await patiently(cluster.store.commit(Put(key="k", value=b"")))
        assert claim.lost.is_set()
        assert cluster.claims.replica in await cluster.claims.replicas()
        async with asyncio.timeout(_PATIENCE), open_cluster(etcd_target) as other, other.claims.hold("x") as theirs:
            assert not theirs.lost.is_set()


async def test_replicas_see_what_the_others_were_told(etcd_target: EtcdTarget) -> None:
    async with open_cluster(etcd_target) as one, open_cluster(etcd_target) as other:
        for number in range(50):
            writer, reader = (one.store, other.store) if number % 2 else (other.store, one.store)
            written = await writer.commit(Put(key="k", value=str(number).encode()))
            assert await reader.catch_up()
            entry = await reader.get("k")
            assert entry is not None
            assert (entry.value, entry.revision) == (str(number).encode(), written)


async def test_who_lost_a_race_reads_what_won_it(etcd_target: EtcdTarget) -> None:
    """Without it a loop that reads, changes and compares would spin."""
    async with open_cluster(etcd_target) as one, open_cluster(etcd_target) as other:

        async def increment(store: EtcdStore) -> int:
            for attempt in range(100):
                entry = await store.get("counter")
                number = int(entry.value) if entry else 0
                put = Put(
                    key="counter", value=str(number + 1).encode(), expected_revision=entry.revision if entry else 0
                )
                try:
                    await store.commit(put)
                except RevisionConflict as conflict:
                    assert conflict.current is not None
                    seen = await store.get("counter")
                    assert seen is not None
                    assert seen.revision >= conflict.current.revision
                    continue
                return attempt
            raise AssertionError("never won")

        await patiently(asyncio.gather(*(increment(each.store) for each in (one, other) for _ in range(10))))
        await one.store.catch_up()
        entry = await one.store.get("counter")
        assert entry is not None
        assert entry.value == b"20"


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
            async with asyncio.timeout(_PATIENCE):
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
            async with asyncio.timeout(_PATIENCE), cluster.claims.hold("x") as claim:
                assert not claim.lost.is_set()


async def test_keys_of_others_are_no_concern_of_ours(etcd: EtcdCluster, etcd_target: EtcdTarget) -> None:
    beside = replace(etcd_target, prefix=f"{etcd_target.prefix}inner/")
    async with open_cluster(etcd_target) as cluster, open_cluster(beside) as other:
        begin = await cluster.store.commit(Put(key="a", value=b""))
        etcd.control("put", f"{etcd_target.prefix}records-not/x", "y")
        await other.store.commit(Put(key="theirs", value=b""))
        latest = await cluster.store.commit(Put(key="b", value=b""))
        assert latest > begin + 1
        assert await cluster.store.catch_up()
        assert [entry.key for entry in await cluster.store.list("")] == ["a", "b"]
        for after in range(begin, latest):
            changes = cluster.store.watch("", after=after)
            assert await patiently(anext(changes)) == Change(key="b", value=b"", revision=latest)


async def test_history_that_etcd_has_forgotten_is_out_of_range(etcd: EtcdCluster, etcd_target: EtcdTarget) -> None:
    async with open_cluster(etcd_target) as cluster:
        begin = await cluster.store.commit(Put(key="k", value=b"0"))
        for number in range(10):
            latest = await cluster.store.commit(Put(key="k", value=str(number).encode()), Delete(key="x"))
    etcd.control("compact", str(latest))
    async with open_cluster(etcd_target) as cluster:  # which has nothing of it in memory
        with pytest.raises(OutOfRange, match="list again"):
            await patiently(anext(cluster.store.watch("k", after=begin)))
        changes = cluster.store.watch("k", after=latest)
        await cluster.store.commit(Put(key="k", value=b"new"))
        assert (await patiently(anext(changes))).value == b"new"


async def test_what_is_forgotten_while_it_is_loaded_is_loaded_anew(
    etcd: EtcdCluster, etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_cluster(etcd_target) as cluster:
        for number in range(5):
            await cluster.store.commit(Put(key=f"k{number}", value=b""))
    monkeypatch.setattr("api_service.etcd.mirror._PAGE", 2)
    forgetting = iter([True])
    load_page = Mirror._page

    async def page(mirror: Mirror, begin: bytes, *, revision: int) -> pb2.RangeResponse:
        if revision and next(forgetting, False):
            etcd.control("put", "elsewhere", "x")
            etcd.control("compact", str(revision + 1))
        return await load_page(mirror, begin, revision=revision)

    monkeypatch.setattr(Mirror, "_page", page)
    async with open_cluster(etcd_target) as cluster:
        assert [entry.key for entry in await cluster.store.list("k")] == [f"k{number}" for number in range(5)]
        assert not next(forgetting, False)
        await patiently(cluster.store.commit(Put(key="k", value=b"", expected_revision=0)))


async def test_history_is_read_from_another_member_when_its_own_is_left(
    etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs says nothing, and does not end the call either."""
    async with open_cluster(etcd_target) as cluster:
        begin = await cluster.store.commit(Put(key="k", value=b"0"))
        await cluster.store.commit(Put(key="k", value=b"1"))
    async with open_cluster(etcd_target) as cluster:  # which has nothing of it in memory
        await cluster.store.commit(Put(key="k", value=b"2"))
        client = cluster.store._client
        watch, asked = client.watch, asyncio.Event()

        async def hang(*arguments: object, **more: object) -> AsyncIterator[pb2.WatchResponse]:
            client.watch = watch  # type: ignore[method-assign]
            asked.set()
            await asyncio.Event().wait()
            yield pb2.WatchResponse()

        monkeypatch.setattr(client, "watch", hang)
        reading = asyncio.ensure_future(anext(cluster.store.watch("k", after=begin)))
        await patiently(asked.wait())
        client.leave(client.member())
        assert (await patiently(reading)).value == b"1"


async def test_a_store_that_was_restored_is_read_anew_and_said_to_be_another(tmp_path: Path) -> None:
    with etcd_cluster(tmp_path / "etcd", size=3) as etcd:
        target = EtcdTarget(endpoints=etcd.endpoints)
        told: list[str] = []
        replaced = asyncio.Event()

        def on_replaced(why: str) -> None:
            told.append(why)
            replaced.set()

        async with open_cluster(target, on_replaced=on_replaced) as cluster:
            store = cluster.store
            kept = await store.commit(Put(key="k", value=b"kept"))
            etcd.members[0].kill()
            await patiently(store.commit(Put(key="k", value=b"kept still")))
            etcd.start(etcd.members[0])
            saved = await patiently(store.commit(Put(key="k", value=b"saved")))
            control = replace(etcd, members=etcd.members[:1])
            backup = tmp_path / "backup"
            control.control("snapshot", "save", str(backup))
            for _ in range(20):
                later = await store.commit(Put(key="k", value=b"lost"), Put(key="more", value=b""))
            changes = store.watch("", after=later)
            waiting = asyncio.ensure_future(anext(changes))
            assert told == [], "a member that begins anew has replaced nothing"
            for member in etcd.members:
                member.kill()
            etcd.restore(backup)
            await asyncio.to_thread(etcd.start)
            await patiently(replaced.wait())
            assert "a backup was restored" in told[0]
            entries = await store.list("")
            assert [(entry.key, entry.value, entry.revision) for entry in entries] == [("k", b"saved", saved)]
            with pytest.raises(OutOfRange):
                await patiently(waiting)
            begun = time.monotonic()
            after = await store.commit(Put(key="k", value=b"after", expected_revision=saved))
            assert kept < saved < after < later
            found = await store.get("k")
            assert found is not None
            assert (found.value, found.revision) == (b"after", after)
            assert time.monotonic() - begun < 5, "the watch does not tell"
            assert len(told) == 1


async def test_a_bug_leaves_no_request_waiting(etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_cluster(etcd_target) as cluster:
        freshness = cluster.store._freshness
        with monkeypatch.context() as patch:
            patch.setattr(freshness, "_latest", lambda: 1 / 0)
            assert not await patiently(cluster.store.catch_up())
        async with asyncio.timeout(_PATIENCE):
            while not await cluster.store.catch_up():
                await asyncio.sleep(0.01)


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
        async with asyncio.timeout(_PATIENCE), cluster.claims.hold("stray"):
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
        async with asyncio.timeout(_PATIENCE), other.claims.hold("x"):
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
        async with asyncio.timeout(_PATIENCE):
            while not client.sent:  # the release is answered
                await asyncio.sleep(0.01)
        client.sent.clear()
        await client.call(txn_call(pb2.TxnRequest(success=[await _stray(session, Layout(etcd_target.prefix))])))
        told.set()
        async with asyncio.timeout(_PATIENCE):
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


async def test_etcd_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with etcd_cluster(tmp_path) as gone:
        endpoints = gone.endpoints
    with pytest.raises(Unavailable) as caught:
        async with open_cluster(EtcdTarget(endpoints=endpoints)):
            raise AssertionError("it is there")
    assert caught.value.reason == "STORE_UNREACHABLE"
    assert caught.value.retry_after is not None


async def test_tls_with_certificates_of_both(tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    for name, issuer in (("server", authority), ("client", authority), ("stranger", stranger)):
        made = issuer.issue_cert("127.0.0.1", common_name=name)
        made.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        made.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    files = ["--cert-file", f"{tmp_path}/server.pem", "--key-file", f"{tmp_path}/server.key"]
    asked = ["--client-cert-auth", "--trusted-ca-file", f"{tmp_path}/ca.pem"]
    with etcd_cluster(tmp_path / "etcd", arguments=[*files, *asked]) as secure:
        target = EtcdTarget(
            endpoints=secure.endpoints,
            authority=tmp_path / "ca.pem",
            certificate=tmp_path / "client.pem",
            key=tmp_path / "client.key",
        )
        async with open_cluster(target) as cluster:
            await cluster.store.commit(Put(key="k", value=b""))
        wrong = replace(target, certificate=tmp_path / "stranger.pem", key=tmp_path / "stranger.key")
        with pytest.raises(Unavailable):
            async with open_cluster(wrong):
                raise AssertionError("a stranger was let in")


async def test_users_with_a_role_for_the_prefix_and_tokens_that_end(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    with etcd_cluster(tmp_path / "etcd") as guarded:
        for command in (
            "user add root:root", "role add slipway", "role grant-permission --prefix=true slipway readwrite /slipway/",
            "user add api:secret", "user grant-role api slipway", "auth enable",
        ):  # fmt: skip
            guarded.control(*command.split())
        target = EtcdTarget(endpoints=guarded.endpoints, user="api", password_file=password)
        async with open_cluster(target) as cluster:
            changes = cluster.store.watch("", after=await cluster.store.revision())
            await cluster.store.commit(Put(key="before", value=b""))
            cluster.store._client._token = "ended.1"
            await patiently(cluster.store.commit(Put(key="after", value=b"")))
            [member] = guarded.members
            member.kill()  # and with it every token
            await asyncio.to_thread(guarded.start)
            await patiently(_until_committed(cluster.store, Put(key="restarted", value=b"")))
            keys = [(await patiently(anext(changes))).key for _ in range(3)]
            assert keys == ["before", "after", "restarted"]
        password.write_text("wrong")
        with pytest.raises(Unavailable) as caught:
            async with open_cluster(target):
                raise AssertionError("it was let in")
        assert caught.value.reason == "STORE_REFUSES"
        password.write_text("secret")
        with pytest.raises(Unavailable, match="permission denied"):
            async with open_cluster(replace(target, prefix="/other/")):
                raise AssertionError("it was let in")


async def _until_committed(store: EtcdStore, put: Put) -> None:
    while True:
        try:
            await store.commit(put)
        except Unavailable:
            continue
        return


async def test_the_watch_repeats_nothing_of_what_was_anticipated(etcd_target: EtcdTarget) -> None:
    """A commit is in the mirror with its answer, and in the watch besides, in every order with those of others."""
    async with open_cluster(etcd_target) as one, open_cluster(etcd_target) as other:
        begin = await one.store.revision()

        async def write(cluster: Cluster, name: str) -> None:
            for number in range(50):
                await cluster.store.commit(Put(key=f"{name}/{number:02d}", value=b""), Delete(key=f"{name}/none"))

        await patiently(asyncio.gather(write(one, "a"), write(one, "b"), write(other, "c")))
        for cluster in (one, other):
            await cluster.store.catch_up()
            changes = cluster.store.watch("", after=begin)
            seen = [await patiently(anext(changes)) for _ in range(150)]
            assert [change.revision for change in seen] == sorted({change.revision for change in seen})
            for name in "abc":
                told = [change.key for change in seen if change.key.startswith(name)]
                assert (
                    told
                    == [f"{name}/{number:02d}" for number in range(50)]
                    == [entry.key for entry in await cluster.store.list(f"{name}/")]
                )


async def test_what_is_older_than_is_promised_is_forgotten(
    etcd: EtcdCluster, etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.etcd.cluster._COMPACT_EVERY", 0.05)
    monkeypatch.setattr("api_service.etcd.cluster._SLACK", 5)
    async with open_cluster(etcd_target, history_limit=20) as cluster, open_cluster(etcd_target, history_limit=20):
        begin = await cluster.store.commit(Put(key="k", value=b""))
        for number in range(60):
            await cluster.store.commit(Put(key="k", value=str(number).encode()))
        latest = await cluster.store.revision()
        async with asyncio.timeout(_PATIENCE):
            while _is_kept(etcd, etcd_target, begin):
                await asyncio.sleep(0.05)
        assert _is_kept(etcd, etcd_target, latest - 20)
        changes = cluster.store.watch("k", after=latest - 20)
        assert [(await patiently(anext(changes))).revision for _ in range(20)] == list(range(latest - 19, latest + 1))


def _is_kept(etcd: EtcdCluster, target: EtcdTarget, revision: int) -> bool:
    try:
        etcd.control("get", f"{target.prefix}records/k", "--rev", str(revision))
    except subprocess.CalledProcessError as error:
        assert "compacted" in error.stderr
        return False
    return True
