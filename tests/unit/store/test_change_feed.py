"""Whom a commit wakes, and where the cursors of the others are afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from api_service.store.change_feed import ChangeFeed
from api_service.store.store import Change
from common.errors import OutOfRange, Unavailable


def _feed(*, history_limit: int = 4) -> ChangeFeed:
    return ChangeFeed(revision=0, oldest=1, history_limit=history_limit, max_revisions=history_limit)


def _commit(feed: ChangeFeed, *keys: str) -> None:
    revision = feed.revision + 1
    feed.append(revision, [Change(key=key, value=b"", revision=revision) for key in keys])


async def _all_wait() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_commit_costs_those_who_follow_what_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = _feed()
    waiting = [asyncio.ensure_future(anext(feed.follow(f"containers/{number}/", after=0))) for number in range(300)]
    broad = asyncio.ensure_future(anext(feed.follow("containers/", after=0)))
    await _all_wait()
    read: list[str] = []
    original = ChangeFeed.read

    async def counted(self: ChangeFeed, prefix: str, after: int) -> tuple[Sequence[Change], int]:
        read.append(prefix)
        return await original(self, prefix, after)

    monkeypatch.setattr(ChangeFeed, "read", counted)
    _commit(feed, "containers/7/state", "events/1")
    assert (await waiting[7]).key == (await broad).key == "containers/7/state"
    await _all_wait()
    assert sorted(read) == ["containers/", "containers/7/"]
    assert [number for number, each in enumerate(waiting) if each.done()] == [7]
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)


async def test_who_waits_passes_any_number_of_commits_of_others() -> None:
    feed = _feed()
    follower = feed.follow("a/", after=0)
    waiting = asyncio.ensure_future(anext(follower))
    await _all_wait()
    for number in range(20):
        _commit(feed, f"b/{number}")
    _commit(feed, "a/1")
    assert await waiting == Change(key="a/1", value=b"", revision=21)


async def test_a_wait_that_is_broken_off_has_passed_them_too() -> None:
    feed = _feed()
    follower = feed.follow("a/", after=0)
    waiting = asyncio.ensure_future(anext(follower))
    await _all_wait()
    for number in range(20):
        _commit(feed, f"b/{number}")
    waiting.cancel()
    await asyncio.wait([waiting])
    _commit(feed, "a/1")
    assert (await anext(follower)).revision == 21


async def test_a_wait_that_is_broken_off_with_the_change_does_not_lose_it() -> None:
    feed = _feed()
    follower = feed.follow("a/", after=0)
    waiting = asyncio.ensure_future(anext(follower))
    await _all_wait()
    _commit(feed, "a/1")
    waiting.cancel()
    await asyncio.wait([waiting])
    _commit(feed, "b/1")
    assert (await anext(follower)).revision == 1


async def test_two_that_wait_for_the_same_do_so_apart() -> None:
    feed = _feed()
    first, second = (asyncio.ensure_future(anext(feed.follow("a/", after=0))) for _ in range(2))
    await _all_wait()
    first.cancel()
    await asyncio.wait([first])
    _commit(feed, "a/1")
    assert (await second).revision == 1


async def test_a_jump_ends_every_wait_wherever_it_leads() -> None:
    for revision in (2, 50):
        feed = _feed()
        waiting = asyncio.ensure_future(anext(feed.follow("a/", after=0)))
        await _all_wait()
        for number in range(4):
            _commit(feed, f"b/{number}")
        feed.jump(revision)
        with pytest.raises(OutOfRange):
            await waiting


async def test_closing_ends_every_wait() -> None:
    feed = _feed()
    waiting = [asyncio.ensure_future(anext(feed.follow(prefix, after=0))) for prefix in ("a/", "b/")]
    await _all_wait()
    feed.close()
    for each in waiting:
        with pytest.raises(Unavailable):
            await each
