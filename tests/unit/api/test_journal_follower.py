"""Following a journal: order, faults of the store, answers that are faster than the journal."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from api_service.executor_client.journal import JournalAnswer, JournalEntry, Signaled
from api_service.executor_client.snapshot import NodeSnapshot
from api_service.nodes.journal_follower import Backoff, JournalFollower
from api_service.nodes.registry import Node
from api_service.records.node_cursors import NodeCursors
from api_service.store.memory_store import MemoryStore
from common.errors import OutOfRange, ResourceExhausted
from tests.fixtures.nodes import node_record


class Journal:
    """An executor that has a journal and nothing else, whatever it is told."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[JournalAnswer] = asyncio.Queue()
        self.asked: list[tuple[str, int]] = []
        self.oldest = 0

    def tell(self, *entries: JournalEntry, journal_id: str = "j") -> None:
        for each in entries:
            self.answers.put_nowait(JournalAnswer(journal_id=journal_id, entry=each))

    def meant_for(self, executor_id: str) -> None: ...

    def expect(self, *, ready: bool) -> None: ...

    async def snapshot(self, *, deadline: object) -> NodeSnapshot:
        self.asked.append(("snapshot", self.oldest))
        return NodeSnapshot(containers=[], journal_id="j", sequence=self.oldest)

    async def follow_journal(self, *, journal_id: str, after: int) -> AsyncGenerator[JournalAnswer]:
        self.asked.append((journal_id, after))
        if after < self.oldest:
            raise OutOfRange("trimmed", reason="TRIMMED")
        yield JournalAnswer(journal_id="j", entry=None)
        while True:
            yield await self.answers.get()


class Records:
    """Takes the place of the observer."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.fault: Exception | None = None
        self.asked: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def observe(self, entries: Sequence[JournalEntry]) -> None:
        self.asked += [entry.sequence for entry in entries]
        await self.gate.wait()
        await asyncio.sleep(0)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        self.seen += [entry.sequence for entry in entries]

    async def resynchronise(self, snapshot: NodeSnapshot) -> None:
        return None


def entry(sequence: int, container: str = "a") -> JournalEntry:
    return JournalEntry(journal_id="j", sequence=sequence, time=0, container_id=container, event=Signaled(signal=1))


@asynccontextmanager
async def following(journal: Any, records: Any) -> AsyncIterator[JournalFollower]:
    async with MemoryStore() as store, asyncio.timeout(60):
        connected = asyncio.Event()
        follower = JournalFollower(
            node="local",
            executor=journal,
            observer=records,
            cursors=NodeCursors(store),
            on_connected=connected.set,
            backoff=Backoff(first=0.001, limit=0.001),
        )
        task = asyncio.create_task(follower.follow_forever())
        await connected.wait()
        yield follower
        task.cancel()
        await asyncio.wait([task])


async def test_entries_are_applied_in_order() -> None:
    journal, records = Journal(), Records()
    async with following(journal, records) as follower:
        journal.tell(*(entry(number) for number in range(1, 40)))
        assert await follower.reached(39, patience=60)
        assert records.seen == list(range(1, 40))


async def test_the_first_contact_is_told_everything_that_is_kept() -> None:
    """A snapshot would hide a process that has ended, and its events."""
    journal, records = Journal(), Records()
    journal.tell(entry(1), entry(2))
    async with following(journal, records) as follower:
        assert await follower.reached(2, patience=60)
        assert journal.asked == [("", 0)]
        assert records.seen == [1, 2]


async def test_a_journal_whose_beginning_is_gone_is_followed_from_a_snapshot() -> None:
    journal, records = Journal(), Records()
    journal.oldest = 7
    with capture_logs():
        async with following(journal, records) as follower:
            journal.tell(entry(8))
            assert await follower.reached(8, patience=60)
    assert journal.asked == [("", 0), ("snapshot", 7), ("j", 7)]
    assert records.seen == [8]


async def test_each_entry_is_applied_once_however_often_it_comes() -> None:
    journal, records = Journal(), Records()
    journal.tell(*(entry(number) for number in (1, 1, 2, 1, 2, 3)))
    async with following(journal, records) as follower:
        assert await follower.reached(3, patience=60)
        journal.tell(entry(2), entry(3), entry(4))
        assert await follower.reached(4, patience=60)
        assert records.seen == [1, 2, 3, 4]
        assert journal.asked == [("", 0)]


async def test_what_is_missing_is_asked_for_again() -> None:
    journal, records = Journal(), Records()
    with capture_logs():
        async with following(journal, records) as follower:
            journal.tell(entry(1), entry(3), entry(2))
            while len(journal.asked) < 2:
                await follower.changed()
            assert (journal.asked[-1], records.seen) == (("j", 1), [1])
            journal.tell(entry(2), entry(3))
            assert await follower.reached(3, patience=60)
    assert records.seen == [1, 2, 3]


async def test_what_stays_missing_is_told_by_a_snapshot() -> None:
    journal, records = Journal(), Records()
    with capture_logs():
        async with following(journal, records) as follower:
            journal.tell(entry(1), entry(3))
            while len(journal.asked) < 2:
                await follower.changed()
            journal.oldest = 3
            journal.tell(entry(3))
            while len(journal.asked) < 4:
                await follower.changed()
    assert journal.asked[1:] == [("j", 1), ("snapshot", 3), ("j", 3)]
    assert records.seen == [1]


async def test_an_entry_of_another_journal_in_the_middle_is_not_applied() -> None:
    journal, records = Journal(), Records()
    journal.tell(entry(1))
    journal.tell(entry(2), journal_id="k")
    with capture_logs() as log:
        async with following(journal, records) as follower:
            while len(journal.asked) < 2:
                await follower.changed()
    assert records.seen == [1]
    assert log[0]["error"] == "the node has another journal, 'k'"


@pytest.mark.parametrize("fault", [ResourceExhausted("the disk is full"), KeyError("a bug")])
async def test_entry_that_could_not_be_written_is_not_lost(fault: Exception) -> None:
    journal, records = Journal(), Records()
    records.fault = fault
    with capture_logs() as log:
        async with following(journal, records) as follower:
            journal.tell(entry(1))
            while len(journal.asked) < 2:
                await follower.changed()
            assert journal.asked == [("", 0), ("j", 0)]
            journal.tell(entry(1))
            assert await follower.reached(1, patience=60)
    assert records.seen == [1]
    assert [line["event"] for line in log] == [
        "node not followed" if isinstance(fault, ResourceExhausted) else "journal entry failed"
    ]


async def test_answer_that_is_next_need_not_wait_and_one_that_is_not_must() -> None:
    journal, records = Journal(), Records()
    async with following(journal, records) as follower:
        with follower.ahead(entry(2)) as is_next:
            assert not is_next
        with follower.ahead(entry(1)) as is_next:
            assert is_next
            journal.tell(entry(1), entry(2))
            for _ in range(20):
                await asyncio.sleep(0)
            assert records.seen == []  # the journal waits for who is ahead of it
        assert await follower.reached(2, patience=60)
        assert records.seen == [1, 2]


async def test_answer_that_the_journal_was_faster_than_is_left_to_it() -> None:
    """Two commits of one record at a time cost a start the time of both."""
    journal, records = Journal(), Records()
    async with following(journal, records) as follower:
        records.gate.clear()
        journal.tell(entry(1))
        while not records.asked:
            await asyncio.sleep(0)
        with follower.ahead(entry(1)) as is_next:
            assert not is_next
        records.gate.set()
        assert await follower.reached(1, patience=60)
        with follower.ahead(entry(2)) as is_next:
            assert is_next
    assert records.asked == [1]


async def test_nobody_waits_for_a_journal_that_is_not_followed() -> None:
    journal, records = Journal(), Records()
    async with following(journal, records) as follower:
        assert not await follower.reached(1, patience=0.001)
    assert not follower.connected
    assert not await follower.reached(1, patience=60)


async def test_an_answer_says_which_journal_it_belongs_to() -> None:
    journal: Any = Journal()
    records: Any = Records()
    async with following(journal, records) as follower:
        node = Node(record=node_record("local"), executor=journal, follower=follower, observer=records)
        journal.tell(entry(1), entry(2))
        assert await follower.reached(2, patience=60)
        await node.settle(entry(2))
        assert records.seen == [1, 2]
        await node.settle(dataclasses.replace(entry(2), journal_id="k"))
        await node.settle(dataclasses.replace(entry(3), journal_id="k"))
        assert records.seen == [1, 2, 2, 3]
        with capture_logs() as log:
            await node.settle(dataclasses.replace(entry(3), journal_id=""))
        assert records.seen == [1, 2, 2, 3]
        assert [line["event"] for line in log] == ["answer left to the journal"]
