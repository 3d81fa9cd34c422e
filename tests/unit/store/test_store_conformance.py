"""What every store must do, run over each of them."""

from __future__ import annotations

import asyncio

import pytest

from api_service.store.key_space import MAX_COMMIT_BYTES, MAX_OPERATIONS, RECORD_TOO_LARGE
from api_service.store.store import Change, Delete, Entry, Put, RevisionConflict, Store
from common.errors import ResourceExhausted
from tests.fixtures.stores import PATIENCE, StoreMaker, take


async def keys(store: Store, prefix: str, *, limit: int = 0, after_key: str = "") -> list[str]:
    return [entry.key for entry in await store.list(prefix, limit=limit, after_key=after_key)]


async def test_new_store_is_empty(store: Store) -> None:
    assert await store.get("a") is None
    assert list(await store.list("")) == []


async def test_put_and_get(store: Store) -> None:
    begin = await store.revision()
    revision = await store.commit(Put(key="containers/1", value=b"one"))
    assert revision == begin + 1
    assert await store.get("containers/1") == Entry(key="containers/1", value=b"one", revision=revision)
    assert await store.revision() == revision


async def test_values_are_any_bytes(store: Store) -> None:
    values = [b"", b"\0", b"\xff\xfe", b"'; DROP TABLE kv; --", bytes(range(256)) * 100]
    for value in values:
        await store.commit(Put(key="k", value=value))
        entry = await store.get("k")
        assert entry is not None
        assert entry.value == value


async def test_revision_is_one_step_a_commit_and_entries_carry_the_one_that_wrote_them(store: Store) -> None:
    begin = await store.revision()
    first = await store.commit(Put(key="a", value=b"1"), Put(key="b", value=b"1"))
    second = await store.commit(Put(key="a", value=b"2"))
    third = await store.commit(Delete(key="b"))
    assert [first, second, third] == [begin + 1, begin + 2, begin + 3]
    assert await store.get("a") == Entry(key="a", value=b"2", revision=second)
    assert await store.get("b") is None


async def test_same_value_again_is_a_change(store: Store) -> None:
    first = await store.commit(Put(key="a", value=b"1"))
    assert await store.commit(Put(key="a", value=b"1")) == first + 1


async def test_nobody_is_told_of_a_commit_that_changes_nothing(store: Store) -> None:
    begin = await store.commit(Put(key="a", value=b"1"))
    assert await store.commit(Delete(key="absent")) >= begin
    latest = await store.commit(Delete(key="absent", expected_revision=0))
    assert await store.commit() == await store.revision() == latest
    after = await store.commit(Put(key="b", value=b"1"))
    assert await take(store.watch("", after=begin), 1) == [Change(key="b", value=b"1", revision=after)]


@pytest.mark.parametrize("how_far", [-1, 99, None])
@pytest.mark.parametrize("deletes", [False, True])
async def test_compare_fails_against_another_revision(store: Store, how_far: int | None, deletes: bool) -> None:
    """None: the key is expected to be absent."""
    await store.commit(Put(key="other", value=b""))
    written = await store.commit(Put(key="k", value=b"old"))
    expected = 0 if how_far is None else written + how_far
    operation = (
        Delete(key="k", expected_revision=expected) if deletes else Put(key="k", value=b"", expected_revision=expected)
    )
    with pytest.raises(RevisionConflict) as caught:
        await store.commit(operation)
    assert caught.value.key == "k"
    assert caught.value.current == Entry(key="k", value=b"old", revision=written)
    assert await store.get("k") == Entry(key="k", value=b"old", revision=written)
    assert await store.revision() == written


async def test_compare_fails_when_the_key_is_absent(store: Store) -> None:
    begin = await store.revision()
    for operation in (Put(key="k", value=b"", expected_revision=5), Delete(key="k", expected_revision=5)):
        with pytest.raises(RevisionConflict) as caught:
            await store.commit(operation)
        assert caught.value.current is None
    assert await store.revision() == begin


async def test_compare_holds(store: Store) -> None:
    first = await store.commit(Put(key="k", value=b"1", expected_revision=0))
    second = await store.commit(Put(key="k", value=b"2", expected_revision=first))
    await store.commit(Delete(key="k", expected_revision=second))
    assert await store.get("k") is None
    await store.commit(Put(key="k", value=b"again", expected_revision=0))


async def test_transaction_is_all_or_nothing(store: Store) -> None:
    begin = await store.commit(Put(key="taken", value=b"", expected_revision=0), Put(key="gone", value=b"x"))
    with pytest.raises(RevisionConflict) as caught:
        await store.commit(
            Put(key="before", value=b""),
            Delete(key="gone"),
            Put(key="taken", value=b"", expected_revision=0),
            Put(key="after", value=b""),
        )
    assert caught.value.key == "taken"
    assert await keys(store, "") == ["gone", "taken"]
    assert await store.revision() == begin
    assert await store.commit(Put(key="next", value=b"")) == begin + 1


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800"])
async def test_impossible_keys_are_refused(store: Store, key: str) -> None:
    begin = await store.revision()
    with pytest.raises(ValueError):
        await store.commit(Put(key=key, value=b""))
    assert await store.revision() == begin


async def test_a_key_twice_in_one_commit_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="twice"):
        await store.commit(Put(key="a", value=b"1"), Delete(key="a"))
    assert await store.get("a") is None


async def test_commits_have_etcd_limits(store: Store) -> None:
    begin = await store.revision()
    with pytest.raises(ResourceExhausted, match="126 keys") as caught:
        await store.commit(*(Put(key=str(n), value=b"") for n in range(MAX_OPERATIONS + 1)))
    assert caught.value.reason == RECORD_TOO_LARGE
    with pytest.raises(ResourceExhausted, match="smaller") as caught:
        await store.commit(Put(key="a", value=bytes(MAX_COMMIT_BYTES)))
    assert caught.value.reason == "RECORD_TOO_LARGE"
    assert await store.revision() == begin
    await store.commit(*(Put(key=str(n), value=b"") for n in range(MAX_OPERATIONS)))
    await store.commit(Put(key="a", value=bytes(MAX_COMMIT_BYTES - 1)))


AWKWARD = sorted(
    ["a", "a/", "a/b", "a/b%", "a/b_", "a/bc", "a/\x7f", "a/\xff", "a/\xff\xff", "a/\uffff", "a/\U0010ffff",
     "a/\U0010ffff\U0010ffff", "a0", "A/b", "b", "%", "_", "a_b", "a%b", "axb", "a*b", "a[b", "'", '"']
)  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "zzz", *AWKWARD])
async def test_list_by_prefix_knows_no_wildcards_and_orders_by_key(store: Store, prefix: str) -> None:
    await store.commit(*(Put(key=key, value=b"") for key in reversed(AWKWARD)))
    assert await keys(store, prefix) == [key for key in AWKWARD if key.startswith(prefix)]


async def test_order_is_that_of_utf8_bytes(store: Store) -> None:
    await store.commit(*(Put(key=key, value=b"") for key in AWKWARD))
    assert await keys(store, "") == sorted(AWKWARD, key=str.encode)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_pages_make_the_whole(store: Store, limit: int) -> None:
    await store.commit(*(Put(key=key, value=b"") for key in AWKWARD))
    pages: list[str] = []
    while page := await keys(store, "a/", limit=limit, after_key=pages[-1] if pages else ""):
        assert len(page) <= limit
        pages += page
    assert pages == [key for key in AWKWARD if key.startswith("a/")]


@pytest.mark.parametrize(
    ("after_key", "expected"),
    [
        ("", ["p/1", "p/2", "p/3"]),
        ("a", ["p/1", "p/2", "p/3"]),  # before the prefix
        ("p/1", ["p/2", "p/3"]),
        ("p/15", ["p/2", "p/3"]),  # need not exist
        ("p/3", []),
        ("q", []),  # beyond the prefix
    ],
)
async def test_list_begins_after_a_key(store: Store, after_key: str, expected: list[str]) -> None:
    await store.commit(*(Put(key=key, value=b"") for key in ("o", "p/1", "p/2", "p/3", "q", "r")))
    assert await keys(store, "p/", after_key=after_key) == expected


async def test_list_after_removals_and_rewrites(store: Store) -> None:
    await store.commit(*(Put(key=f"k{n}", value=b"") for n in range(5)))
    await store.commit(Delete(key="k1"), Put(key="k3", value=b"new"), Delete(key="k4"))
    assert [(entry.key, entry.value) for entry in await store.list("k")] == [("k0", b""), ("k2", b""), ("k3", b"new")]


async def test_many_writers_racing_one_key_have_one_winner(store: Store) -> None:
    async def claim(number: int) -> int | None:
        try:
            await store.commit(
                Put(key="names/web", value=str(number).encode(), expected_revision=0),
                Put(key=f"containers/{number}", value=b""),
            )
        except RevisionConflict as conflict:
            assert conflict.current is not None
            return None
        return number

    outcomes = await asyncio.gather(*(claim(number) for number in range(50)))
    winners = [number for number in outcomes if number is not None]
    assert len(winners) == 1
    entry = await store.get("names/web")
    assert entry is not None
    assert entry.value == str(winners[0]).encode()
    assert await keys(store, "containers/") == [f"containers/{winners[0]}"]


async def test_concurrent_increments_lose_none(store: Store) -> None:
    async def increment() -> None:
        while True:
            entry = await store.get("counter")
            number = int(entry.value) if entry else 0
            put = Put(key="counter", value=str(number + 1).encode(), expected_revision=entry.revision if entry else 0)
            try:
                await store.commit(put)
            except RevisionConflict:
                continue
            return

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(increment() for _ in range(20)))
    entry = await store.get("counter")
    assert entry is not None
    assert entry.value == b"20"


async def test_revisions_of_concurrent_commits_are_distinct_and_contiguous(store: Store) -> None:
    begin = await store.revision()
    revisions = await asyncio.gather(*(store.commit(Put(key=f"k{n}", value=b"")) for n in range(100)))
    assert sorted(revisions) == list(range(begin + 1, begin + 101))
    for number, revision in enumerate(revisions):
        entry = await store.get(f"k{number}")
        assert entry is not None
        assert entry.revision == revision


async def test_cancelled_commit_is_either_done_or_not_and_the_store_goes_on(store: Store) -> None:
    begin = await store.revision()
    commits = [asyncio.ensure_future(store.commit(Put(key=f"k{n}", value=b""), Put(key=f"l{n}", value=b"")))
               for n in range(20)]  # fmt: skip
    await asyncio.sleep(0)
    for commit in commits[::2]:
        commit.cancel()
    await asyncio.gather(*commits, return_exceptions=True)
    last = await store.commit(Put(key="end", value=b""))
    done = [key.removeprefix("k") for key in await keys(store, "k")]
    assert done == [key.removeprefix("l") for key in await keys(store, "l")]
    assert set(done) >= {str(number) for number in range(1, 20, 2)}
    assert last == begin + len(done) + 1
    changes = await take(store.watch("", after=begin), 2 * len(done) + 1)
    assert [change.revision for change in changes] == sorted(change.revision for change in changes)


async def test_catching_up_changes_nothing(store: Store) -> None:
    latest = await store.commit(Put(key="k", value=b""))
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(store.catch_up() for _ in range(10)))
    assert await store.revision() == latest


async def test_history_limit_must_be_sensible(make_store: StoreMaker) -> None:
    with pytest.raises(ValueError, match="history_limit"):
        make_store(0)
