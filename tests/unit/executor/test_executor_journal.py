from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from common.errors import OutOfRange, Unavailable
from common.sqlite import Database
from executor_service.journal import SCHEMA, Journal
from executor_service.journal_entries import Exited, JournalEntry, Signaled, Started

_BOX = "a" * 64


@asynccontextmanager
async def _journal(directory: Path, *, retention: int = 1000) -> AsyncIterator[Journal]:
    async with Database(directory / "state.db", schema=SCHEMA) as database:
        journal = Journal(database, retention=retention)
        await journal.load()
        yield journal


async def _append(journal: Journal, count: int = 1) -> None:
    for _ in range(count):
        await journal._database.write(
            lambda connection: journal.append(connection, container_id=_BOX, event=Signaled(signal=15)),
            on_commit=journal.publish,
        )


async def _take(entries: AsyncIterator[JournalEntry], count: int) -> list[int]:
    async with asyncio.timeout(60):
        return [(await anext(entries)).sequence for _ in range(count)]


async def test_history_and_what_comes_are_one_stream_without_a_gap(tmp_path: Path) -> None:
    async with _journal(tmp_path) as journal:
        await _append(journal, 3)
        entries = journal.follow(1)
        assert await _take(entries, 2) == [2, 3]
        waiting = asyncio.ensure_future(_take(entries, 2))
        await _append(journal, 2)
        assert await waiting == [4, 5]


async def test_many_followers_while_many_write(tmp_path: Path) -> None:
    async with _journal(tmp_path) as journal:
        followers = [asyncio.ensure_future(_take(journal.follow(0), 60)) for _ in range(10)]
        await asyncio.gather(*(_append(journal, 10) for _ in range(6)))
        for follower in followers:
            assert await follower == list(range(1, 61))


async def test_history_beyond_memory_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor_service.journal._RECENT", 4)
    monkeypatch.setattr("executor_service.journal._BATCH", 3)
    async with _journal(tmp_path) as journal:
        await _append(journal, 10)
        assert await _take(journal.follow(0), 10) == list(range(1, 11))
    async with _journal(tmp_path) as journal:
        assert await _take(journal.follow(2), 8) == list(range(3, 11))


async def test_identity_and_position_survive_a_restart(tmp_path: Path) -> None:
    async with _journal(tmp_path) as journal:
        await _append(journal, 2)
        before = (journal.id, journal.node_id, journal.head)
    async with _journal(tmp_path) as journal:
        assert (journal.id, journal.node_id, journal.head) == before
        assert journal.id != journal.node_id
        await _append(journal)
        assert journal.head == 3
    async with _journal(tmp_path / "other") as other:
        assert other.id != before[0]


async def test_old_entries_are_dropped_and_their_positions_refused(tmp_path: Path) -> None:
    async with _journal(tmp_path, retention=5) as journal:
        await _append(journal, 12)
        assert await _take(journal.follow(0), 5) == [8, 9, 10, 11, 12]
        journal.accept(journal_id="", after=7)
        with pytest.raises(OutOfRange, match="oldest kept is 8"):
            journal.accept(journal_id="", after=6)
    async with _journal(tmp_path, retention=5) as journal:
        with pytest.raises(OutOfRange):
            journal.accept(journal_id=journal.id, after=6)


async def test_the_position_of_an_emptied_journal_is_remembered(tmp_path: Path) -> None:
    async with _journal(tmp_path) as journal:
        await _append(journal, 3)
        await journal._database.write(lambda connection: connection.execute("DELETE FROM journal") and None)
    async with _journal(tmp_path) as journal:
        assert journal.head == 3
        journal.accept(journal_id="", after=3)
        with pytest.raises(OutOfRange):
            journal.accept(journal_id="", after=2)


@pytest.mark.parametrize(("journal_id", "after"), [("other", 0), ("", 2), ("", -1)])
async def test_unknown_positions_are_refused(tmp_path: Path, journal_id: str, after: int) -> None:
    async with _journal(tmp_path) as journal:
        await _append(journal)
        with pytest.raises(OutOfRange, match="ListContainers"):
            journal.accept(journal_id=journal_id, after=after)


async def test_a_follower_too_slow_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor_service.journal._RECENT", 2)
    async with _journal(tmp_path, retention=3) as journal:
        await _append(journal, 2)
        entries = journal.follow(0)
        assert await _take(entries, 2) == [1, 2]
        await _append(journal, 5)
        with pytest.raises(OutOfRange, match="dropped before they were read"):
            await anext(entries)


async def test_a_write_that_fails_uses_no_number(tmp_path: Path) -> None:
    async with _journal(tmp_path) as journal:
        await _append(journal)

        def fail(connection: object) -> JournalEntry:
            journal.append(connection, container_id=_BOX, event=Signaled(signal=9))  # type: ignore[arg-type]  # it is one
            raise RuntimeError("after the insert")

        with pytest.raises(RuntimeError):
            await journal._database.write(fail, on_commit=journal.publish)
        await _append(journal)
        assert await _take(journal.follow(0), 2) == [1, 2]


async def test_events_come_back_as_they_were(tmp_path: Path) -> None:
    events = [
        Started(start_id="s", pid=1, sandbox_id=_BOX, netns_path=""),
        Exited(start_id="s", exit_code=None, error="nobody saw it"),
        Exited(start_id="s", exit_code=0, oom_killed=True),
    ]
    async with _journal(tmp_path) as journal:
        for event in events:
            await journal._database.write(
                lambda connection, event=event: journal.append(  # type: ignore[misc]  # mypy infers no default's type
                    connection, container_id=_BOX, event=event, time_ns=1_700_000_000_123_456_789
                )
            )
    async with _journal(tmp_path) as journal:
        entries = journal.follow(0)
        read = [await anext(entries) for _ in events]
        assert [entry.event for entry in read] == events
        assert {entry.time for entry in read} == {1_700_000_000_123_456_789}


async def test_closing_lets_the_followers_go(tmp_path: Path) -> None:
    async with _journal(tmp_path) as journal:
        waiting = asyncio.ensure_future(_take(journal.follow(0), 1))
        await asyncio.sleep(0)
        journal.close()
        with pytest.raises(Unavailable):
            await waiting
