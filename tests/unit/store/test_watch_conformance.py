"""What every store must tell of its changes, run over each of them."""

from __future__ import annotations

import asyncio

import pytest

from api_service.etcd.store import EtcdStore
from api_service.store.store import Change, Delete, Put, RevisionConflict, Store
from common.errors import OutOfRange, Unavailable
from tests.fixtures.stores import StoreMaker, take


async def test_watch_gives_history_then_live(store: Store) -> None:
    begin = await store.revision()
    await store.commit(Put(key="c/1", value=b"a"))
    await store.commit(Put(key="other", value=b""))
    changes = store.watch("c/", after=begin)
    assert await take(changes, 1) == [Change(key="c/1", value=b"a", revision=begin + 1)]
    waiting = asyncio.ensure_future(take(changes, 2))
    await asyncio.sleep(0)
    await store.commit(Put(key="d/1", value=b"not ours"))
    await store.commit(Put(key="c/1", value=b"b"))
    await store.commit(Delete(key="c/1"))
    assert await waiting == [
        Change(key="c/1", value=b"b", revision=begin + 4),
        Change(key="c/1", value=None, revision=begin + 5),
    ]


async def test_watch_gives_a_commit_in_the_order_of_its_operations(store: Store) -> None:
    begin = await store.commit(Put(key="b", value=b"0"))
    after = await store.commit(
        Put(key="z", value=b"1"), Delete(key="absent"), Delete(key="b"), Put(key="a", value=b"2")
    )
    assert await take(store.watch("", after=begin), 3) == [
        Change(key="z", value=b"1", revision=after),
        Change(key="b", value=None, revision=after),
        Change(key="a", value=b"2", revision=after),
    ]


async def test_watch_resumes_after_any_revision(store: Store) -> None:
    begin = await store.revision()
    for number in range(1, 11):
        await store.commit(Put(key=f"k{number}", value=b""))
    for after in range(begin, begin + 10):
        resumed = await take(store.watch("k", after=after), begin + 10 - after)
        assert [change.revision for change in resumed] == list(range(after + 1, begin + 11))


async def test_watch_does_not_give_what_a_failed_commit_wanted(store: Store) -> None:
    begin = await store.revision()
    await store.commit(Put(key="a", value=b""))
    with pytest.raises(RevisionConflict):
        await store.commit(Put(key="b", value=b""), Put(key="a", value=b"", expected_revision=0))
    await store.commit(Put(key="c", value=b""))
    assert [change.key for change in await take(store.watch("", after=begin), 2)] == ["a", "c"]


async def test_watcher_that_has_seen_a_change_reads_it(store: Store) -> None:
    changes = store.watch("k", after=await store.revision())
    for number in range(50):
        commit = asyncio.ensure_future(store.commit(Put(key="k", value=str(number).encode())))
        [change] = await take(changes, 1)
        entry = await store.get("k")
        assert entry is not None
        assert (entry.value, entry.revision) == (change.value, change.revision)
        await commit


async def test_watchers_under_concurrent_writers_see_every_change_once_in_order(store: Store) -> None:
    total = 300
    begin = await store.revision()

    async def watcher(after: int) -> list[int]:
        changes = await take(store.watch("k/", after=begin + after), total - after)
        return [change.revision - begin for change in changes]

    async def writer(name: int) -> None:
        for number in range(total // 10):
            await store.commit(Put(key=f"k/{name}", value=str(number).encode()))

    early = [asyncio.ensure_future(watcher(0)) for _ in range(5)]
    await asyncio.gather(*(writer(name) for name in range(10)))
    late = [asyncio.ensure_future(watcher(after)) for after in (0, 1, 150, total - 1)]
    for watched in await asyncio.gather(*early):
        assert watched == list(range(1, total + 1))
    for after, watched in zip((0, 1, 150, total - 1), await asyncio.gather(*late), strict=True):
        assert watched == list(range(after + 1, total + 1))


async def test_watch_before_the_kept_history_is_out_of_range(make_store: StoreMaker) -> None:
    async with make_store(10) as store:
        begin = await store.revision()
        for number in range(200):
            await store.commit(Put(key="k", value=str(number).encode()))
        for after in (0, 1, 189):
            with pytest.raises(OutOfRange, match="list again") as caught:
                await take(store.watch("k", after=begin + after), 1)
            assert caught.value.reason == "CURSOR_GONE"
        kept = await take(store.watch("k", after=begin + 190), 10)
        assert [change.revision - begin for change in kept] == list(range(191, 201))


async def test_watcher_that_falls_behind_the_kept_history_is_told(make_store: StoreMaker) -> None:
    async with make_store(10) as store:
        changes = store.watch("k", after=await store.revision())
        await store.commit(Put(key="k", value=b"first"))
        assert [change.value for change in await take(changes, 1)] == [b"first"]
        for _ in range(11):
            await store.commit(Put(key="k", value=b""))
        with pytest.raises(OutOfRange):
            await take(changes, 1)


async def test_slow_watcher_within_the_kept_history_misses_nothing(store: Store) -> None:
    changes = store.watch("k", after=await store.revision())
    await store.commit(Put(key="k", value=b"0"))
    seen = await take(changes, 1)
    for number in range(1, 500):
        await store.commit(Put(key="k" if number % 2 else "other", value=str(number).encode()))
    seen += await take(changes, 250)
    assert [int(change.value or b"") for change in seen] == [0, *range(1, 500, 2)]


async def test_cursor_ahead_of_the_store_is_out_of_range(store: Store) -> None:
    latest = await store.commit(Put(key="k", value=b""))
    with pytest.raises(OutOfRange, match="ahead"):
        await take(store.watch("k", after=latest + 1), 1)


async def test_cancelled_watcher_leaves_no_task_and_hinders_nobody(store: Store) -> None:
    before, begin = asyncio.all_tasks(), await store.revision()
    watchers = [asyncio.ensure_future(take(store.watch("k", after=begin), 1)) for _ in range(20)]
    await asyncio.sleep(0)
    if not isinstance(store, EtcdStore):  # which has tasks of its own, and gRPC's
        assert len(asyncio.all_tasks() - before) == len(watchers), "a watcher is its caller's task and nothing besides"
    for watcher in watchers[:19]:
        watcher.cancel()
    outcomes = await asyncio.gather(*watchers[:19], return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    written = await store.commit(Put(key="k", value=b""))
    assert [change.revision for change in await watchers[19]] == [written]
    assert all(watcher.done() for watcher in watchers)
    if not isinstance(store, EtcdStore):
        assert asyncio.all_tasks() == before


async def test_waiting_for_a_change_can_time_out_and_go_on(store: Store) -> None:
    changes = store.watch("k", after=await store.revision())
    for number in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), timeout=0.001)
        await store.commit(Put(key="k", value=str(number).encode()))
        assert [change.value for change in await take(changes, 1)] == [str(number).encode()]


async def test_changes_are_those_that_reads_include(store: Store) -> None:
    begin = await store.revision()
    assert await store.changes("k/", after=begin) == ([], begin)
    await store.commit(Put(key="k/1", value=b"a"), Put(key="other", value=b"b"))
    middle = await store.commit(Put(key="k/2", value=b"c"))
    await store.commit(Delete(key="k/1"))
    latest = await store.commit(Put(key="other", value=b"d"))
    told = [
        Change(key="k/1", value=b"a", revision=begin + 1),
        Change(key="k/2", value=b"c", revision=begin + 2),
        Change(key="k/1", value=None, revision=begin + 3),
    ]
    assert await store.changes("k/", after=begin) == (told, latest)
    assert await store.changes("k/", after=middle) == (told[2:], latest)
    assert latest == await store.revision()


async def test_changes_that_are_not_at_hand_are_not_told_in_part(make_store: StoreMaker) -> None:
    async with make_store(10) as store:
        begin = await store.commit(Put(key="k", value=b""))
        for _ in range(11):
            await store.commit(Put(key="k", value=b""))
        assert await store.changes("k", after=begin) is None
        assert await store.changes("k", after=-1) is None
        found = await store.changes("k", after=begin + 2)
        assert found is not None
        assert [change.revision - begin for change in found[0]] == list(range(3, 12))


async def test_closing_the_store_ends_its_watchers(make_store: StoreMaker) -> None:
    async with make_store(10) as store:
        watcher = asyncio.ensure_future(take(store.watch("k", after=await store.revision()), 1))
        await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="closed"):
        await watcher
