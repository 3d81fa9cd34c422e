"""What the store on etcd promises beyond the Protocol: lost answers, other replicas, what etcd has forgotten."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from etcdserverpb import etcd_service_pb2 as pb2

from api_service.etcd.claims import EtcdClaims
from api_service.etcd.cluster import Cluster, open_cluster
from api_service.etcd.mirror import Mirror
from api_service.etcd.store import EtcdStore
from api_service.etcd.target import EtcdTarget
from api_service.store.store import Change, Delete, Put, RevisionConflict
from common.errors import OutOfRange
from tests.fixtures.etcd import EtcdCluster, etcd_cluster
from tests.fixtures.lossy_etcd import lossy
from tests.fixtures.stores import PATIENCE, patiently


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
            changes = store.watch("", after=saved)
            after = await store.commit(Put(key="k", value=b"after", expected_revision=saved))
            assert kept < saved < after < later
            found = await store.get("k")
            assert found is not None
            assert (found.value, found.revision) == (b"after", after)
            async with open_cluster(target) as other:
                theirs = await patiently(other.store.commit(Put(key="k", value=b"theirs", expected_revision=after)))
            # What was committed elsewhere is known by the watch alone.
            assert [(await patiently(anext(changes))).revision for _ in range(2)] == [after, theirs]
            assert len(told) == 1


async def test_a_busy_process_does_not_take_etcd_for_silent(
    etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.etcd.freshness._PATIENCE", 1.0)
    async with open_cluster(etcd_target) as cluster:
        assert await cluster.store.catch_up()
        for _ in range(3):
            asking = asyncio.ensure_future(cluster.store.catch_up())
            await asyncio.sleep(0)
            time.sleep(1.5)  # noqa: ASYNC251 - that it blocks is the point
            assert await patiently(asking)


async def test_a_silent_etcd_is_noticed(etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api_service.etcd.freshness._PATIENCE", 0.5)
    async with open_cluster(etcd_target) as cluster:
        asked = cluster.store._client.call

        async def silent(*arguments: object, **more: object) -> object:
            return await asyncio.Event().wait()

        monkeypatch.setattr(cluster.store._client, "call", silent)
        begun = time.monotonic()
        assert not await patiently(cluster.store.catch_up())
        assert time.monotonic() - begun > 0.4
        monkeypatch.setattr(cluster.store._client, "call", asked)


async def test_a_bug_leaves_no_request_waiting(etcd_target: EtcdTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_cluster(etcd_target) as cluster:
        freshness = cluster.store._freshness
        with monkeypatch.context() as patch:
            patch.setattr(freshness, "_latest", lambda: 1 / 0)
            assert not await patiently(cluster.store.catch_up())
        async with asyncio.timeout(PATIENCE):
            while not await cluster.store.catch_up():
                await asyncio.sleep(0.01)


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
        async with asyncio.timeout(PATIENCE):
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
