"""What a client sends on its way to a process that does not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from common.errors import FailedPrecondition, InvalidArgument, Unavailable
from executor_service.container import TerminalSize
from executor_service.streams.client_input import feed
from executor_service.streams.exec_spec import StreamInput

PATIENCE = 60.0  # seconds
SIZE = TerminalSize(height=1, width=2)


class Process:
    """It takes what is written when it `reads`."""

    def __init__(self, *, reads: bool = True) -> None:
        self.reads = asyncio.Event()
        self.taken: list[object] = []
        self.changed = asyncio.Event()
        self.error: Exception | None = None
        if reads:
            self.reads.set()

    async def write(self, data: bytes) -> None:
        await self.reads.wait()
        self._take(data)

    async def end_input(self) -> None:
        self._take("end")

    async def resize(self, size: TerminalSize) -> None:
        self._take(size)
        if self.error is not None:
            raise self.error

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def _take(self, what: object) -> None:
        self.taken.append(what)
        self.changed.set()


async def sent(*messages: StreamInput) -> AsyncIterator[StreamInput]:
    for message in messages:
        yield message


async def test_everything_arrives_in_order() -> None:
    process = Process()
    messages = [StreamInput(data=b"a"), StreamInput(data=b"b"), StreamInput(end=True), StreamInput(data=b"c")]
    assert not await feed(sent(*messages), process)
    assert process.taken == [b"a", b"b", "end", b"c"]


async def test_sizes_overtake_what_nobody_reads() -> None:
    process = Process(reads=False)
    feeding = asyncio.create_task(feed(sent(StreamInput(data=b"a"), StreamInput(resize=SIZE)), process))
    await process.until(lambda: process.taken == [SIZE])
    process.reads.set()
    assert not await feeding
    assert process.taken == [SIZE, b"a"]


async def test_who_leaves_does_not_wait_for_a_process_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("executor_service.streams.client_input._LEAVE", 0.01)
    process = Process(reads=False)
    assert await asyncio.wait_for(feed(sent(StreamInput(data=b"a"), StreamInput(detach=True)), process), PATIENCE)
    assert process.taken == []


async def test_what_was_typed_before_leaving_arrives() -> None:
    process = Process()
    assert await feed(sent(StreamInput(data=b"a"), StreamInput(detach=True), StreamInput(data=b"b")), process)
    assert process.taken == [b"a"]


@pytest.mark.parametrize("error", [FailedPrecondition("no terminal"), Unavailable("no answer")])
async def test_a_resize_that_fails_ends_nothing(error: Exception) -> None:
    process = Process()
    process.error = error
    assert not await feed(sent(StreamInput(resize=SIZE), StreamInput(data=b"a")), process)
    assert process.taken == [SIZE, b"a"]


async def test_a_message_that_is_none_is_told() -> None:
    async def broken() -> AsyncIterator[StreamInput]:
        yield StreamInput(data=b"a")
        raise InvalidArgument("no")

    before = len(asyncio.all_tasks())
    with pytest.raises(InvalidArgument):
        await feed(broken(), Process(reads=False))
    assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize(("piece", "most"), [(64 * 1024, 5), (1, 1100)])
async def test_no_more_is_kept_than_the_bound(piece: int, most: int) -> None:
    taken_up = 0

    async def endless() -> AsyncIterator[StreamInput]:
        nonlocal taken_up
        while True:
            taken_up += 1
            yield StreamInput(data=b"x" * piece)

    process = Process(reads=False)
    feeding = asyncio.create_task(feed(endless(), process))
    for _ in range(3000):
        await asyncio.sleep(0)
    assert 1 < taken_up <= most
    process.reads.set()
    await process.until(lambda: len(process.taken) > 3 * most)
    feeding.cancel()
    await asyncio.wait({feeding})
