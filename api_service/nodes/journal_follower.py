"""Follows one node's journal into the records, from the stored position, for as long as the service runs.

Entries of different containers are applied beside each other, entries of one container in order. The stored position
lags behind by design: to repeat an entry is harmless, and a commit an entry would double the cost of a start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.client import ExecutorClient
from api_service.executor_client.journal import JournalAnswer, JournalEntry
from api_service.nodes.journal_batches import MAX_BATCH, batches
from api_service.nodes.observer import Observer
from api_service.records.container import JournalPosition
from api_service.records.node_cursors import NodeCursors
from common.errors import OutOfRange, SlipwayError

_log = structlog.get_logger(__name__)

_MAX_TOGETHER = 16  # entries of one container in one commit, which holds up to three events for each
_SAVE_EVERY = 64  # entries
_SNAPSHOT_TIME = 30  # seconds
_SAVE_AFTER = 1.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Seconds between attempts to reach a node: `first`, doubled each time, at most `limit`."""

    first: float = 0.1
    limit: float = 2.0


class JournalFollower:
    """Run `follow_forever` as a task; the other methods may be called at any time.

    `on_connected` is called each time the node accepts the position, after a resynchronisation if one was needed.
    `introduce` is awaited before each attempt to reach it, which fails when that does.
    """

    def __init__(
        self,
        *,
        node: str,
        executor: ExecutorClient,
        observer: Observer,
        cursors: NodeCursors,
        on_connected: Callable[[], None],
        backoff: Backoff,
    ) -> None:
        self.introduce: Callable[[], Awaitable[None]] = _nobody
        self._node = node
        self._executor = executor
        self._observer = observer
        self._cursors = cursors
        self._on_connected = on_connected
        self._backoff = backoff
        self._position = JournalPosition()
        self._saved = JournalPosition()
        self._gap = JournalPosition()  # where entries were missing last
        self._following = False
        self._connected = False
        self._failure = ""
        self._changed = asyncio.Event()
        self._waiting: asyncio.Queue[JournalAnswer | BaseException] | None = None
        self._ahead: dict[int, asyncio.Event] = {}
        self._applying = 0  # the last entry of those that are being applied; 0: none are

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def following(self) -> bool:
        """Whether it is this replica that follows the journal, connected or not."""
        return self._following

    @property
    def failure(self) -> str:
        """Why it is not connected; empty when it is, and before the first attempt has ended."""
        return "" if self._connected else self._failure

    @property
    def journal_id(self) -> str:
        """The journal followed last; empty before the first contact."""
        return self._position.journal_id

    def interrupt(self, why: SlipwayError) -> None:
        """Give the connection up, if there is one, and try to make another: the node does not answer otherwise, and a
        silent journal tells nothing of that."""
        if self._waiting is not None and not self._waiting.full():
            self._waiting.put_nowait(why)

    async def changed(self) -> None:
        """Wait until the connection or the position is another."""
        await self._changed.wait()

    async def reached(self, sequence: int, *, patience: float) -> bool:
        """Wait until the entry of this sequence is in the records; False when the journal is not being followed, or
        after `patience` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._connected and self._position.sequence < sequence:
                    await self._changed.wait()
        return self._position.sequence >= sequence

    async def saved(self) -> JournalPosition | None:
        """How far the records are at least, whoever follows the journal; None when nobody ever did."""
        return await self._cursors.get(self._node)

    async def told(self, position: JournalPosition, *, patience: float) -> bool:
        """Wait until the records are as far as this position, whoever follows the journal; False when it is another
        journal, when nobody follows it, or after `patience` seconds."""
        if self._following:
            return position.journal_id == self.journal_id and await self.reached(position.sequence, patience=patience)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience), contextlib.aclosing(self._cursors.watch(self._node)) as positions:
                async for known in positions:
                    if known.journal_id == position.journal_id and known.sequence >= position.sequence:
                        return True
        return False

    @contextlib.contextmanager
    def ahead(self, entry: JournalEntry) -> Iterator[bool]:
        """Around the application of an entry that came in an answer: true when every entry before it has been applied,
        and the journal has not brought it yet. When it does, it waits for the end of the block."""
        sequence = entry.sequence
        under_way = sequence <= self._applying or sequence in self._ahead
        is_next = entry.journal_id == self.journal_id and sequence == self._position.sequence + 1
        if not self._connected or not is_next or under_way:
            yield False
            return
        applied = self._ahead[sequence] = asyncio.Event()
        try:
            yield True
        finally:
            applied.set()
            del self._ahead[sequence]

    async def follow_forever(self) -> None:
        stored = await self._cursors.get(self._node)
        self._position = self._saved = stored or JournalPosition()
        lost = False
        delay = self._backoff.first
        self._following = True
        saving = asyncio.create_task(self._save_when_idle(), name=f"save the position in {self._node}")
        try:
            while True:
                try:
                    await self.introduce()
                    if lost:
                        await self._resynchronise()
                        lost = False
                    async for _ in self._follow():
                        delay = self._backoff.first
                except OutOfRange as error:
                    self._failure = error.message
                    _log.warning("journal position unknown, taking a snapshot", node=self._node, error=error.message)
                    self._position = JournalPosition()
                    lost = True
                except SlipwayError as error:
                    self._failure = error.message
                    _log.info("node not followed", node=self._node, error=error.message, retry_in=delay)
                except Exception as error:
                    # A bug must not end the following of a node for good.
                    self._failure = "following its journal failed; the service's log says how"
                    _log.error("journal entry failed", node=self._node, exc_info=error)
                self._set_connected(False)
                await asyncio.sleep(delay)
                delay = min(delay * 2, self._backoff.limit)
        finally:
            self._following = False
            saving.cancel()
            await asyncio.wait([saving])
            self._set_connected(False)
            await self._save()

    async def _follow(self) -> AsyncIterator[None]:
        """Yields whenever something came. At the first contact ever the journal is read from its beginning: a snapshot
        would not tell of a process that has ended again."""
        answers = self._executor.follow_journal(journal_id=self.journal_id, after=self._position.sequence)
        self._waiting = asyncio.Queue(MAX_BATCH)
        async with contextlib.aclosing(batches(answers, self._waiting)) as gathered:
            async for batch in gathered:
                if not self.journal_id:
                    self._move_to(JournalPosition(journal_id=batch[0].journal_id))
                    await self._save()
                entries, fault = self._next_of(batch)
                await self._apply(entries)
                if fault is not None:
                    raise fault
                if not self._connected:
                    self._set_connected(True)
                    self._on_connected()
                yield

    def _next_of(self, batch: Sequence[JournalAnswer]) -> tuple[list[JournalEntry], SlipwayError | None]:
        """The entries that come next, each once, and what is wrong with the answer after the last of them. A journal
        has no gaps: what is missing is asked for again, and when it is missing again, a snapshot has to tell it."""
        entries: list[JournalEntry] = []
        reached = self._position.sequence
        for answer in batch:
            if answer.journal_id != self.journal_id:
                text = f"the node has another journal, {answer.journal_id!r}"
                return entries, OutOfRange(text, reason="JOURNAL_CHANGED")
            if answer.entry is None or answer.entry.sequence <= reached:
                continue
            if reached and answer.entry.sequence != reached + 1:  # what is kept of a journal need not begin at 1
                text = f"the node's journal has entry {answer.entry.sequence} after {reached}"
                before, self._gap = self._gap, JournalPosition(journal_id=self.journal_id, sequence=reached)
                again = before == self._gap
                return entries, (OutOfRange if again else SlipwayError)(text, reason="JOURNAL_GAP")
            entries.append(answer.entry)
            reached = answer.entry.sequence
        return entries, None

    async def _apply(self, entries: Sequence[JournalEntry]) -> None:
        if not entries:
            return
        by_container: dict[str, list[JournalEntry]] = {}
        for entry in entries:
            if (applied := self._ahead.get(entry.sequence)) is not None:
                await applied.wait()
            by_container.setdefault(entry.container_id, []).append(entry)
        self._applying = entries[-1].sequence
        try:
            async with asyncio.TaskGroup() as group:
                for each in by_container.values():
                    group.create_task(self._apply_in_order(each))
        except ExceptionGroup as errors:
            # One store, one fault: the first tells it all.
            raise errors.exceptions[0] from errors
        finally:
            self._applying = 0
        self._move_to(JournalPosition(journal_id=self.journal_id, sequence=entries[-1].sequence))
        if self._position.sequence - self._saved.sequence >= _SAVE_EVERY:
            await self._save()

    async def _apply_in_order(self, entries: Sequence[JournalEntry]) -> None:
        for begin in range(0, len(entries), _MAX_TOGETHER):
            await self._observer.observe(entries[begin : begin + _MAX_TOGETHER])

    async def _resynchronise(self) -> None:
        snapshot = await self._executor.snapshot(deadline=Deadline.after(_SNAPSHOT_TIME))
        await self._observer.resynchronise(snapshot)
        self._move_to(JournalPosition(journal_id=snapshot.journal_id, sequence=snapshot.sequence))
        await self._save()

    async def _save_when_idle(self) -> None:
        """Other replicas know from the store alone how far the records are."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_SAVE_AFTER)
            await self._save()

    async def _save(self) -> None:
        if self._position != self._saved and self._position.journal_id:
            try:
                await self._cursors.set(self._node, self._position)
            except SlipwayError as error:
                _log.warning("journal position not saved", node=self._node, error=error.message)
            else:
                self._saved = self._position

    def _move_to(self, position: JournalPosition) -> None:
        self._position = position
        self._wake()

    def _set_connected(self, connected: bool) -> None:
        self._connected = connected
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _nobody() -> None: ...
