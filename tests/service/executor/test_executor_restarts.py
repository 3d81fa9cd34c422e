"""Restart policies over a fake host: what is pending, what calls it off, and what a new executor makes of it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from common.errors import FailedPrecondition, ResourceExhausted
from executor_service.container import ContainerSpec
from executor_service.container_record import Phase
from executor_service.executor import Executor
from executor_service.journal_entries import Exited, JournalEntry, RestartCancelled, Started, StartFailure
from executor_service.oci.runtime import Bundle, CreatedProcess
from executor_service.operations.container_create import container_create
from executor_service.operations.container_remove import container_remove
from executor_service.operations.container_signal import container_signal
from executor_service.operations.container_start import container_start
from executor_service.operations.container_stop import container_stop
from executor_service.restart import Dependency, DependencyCondition, RestartCondition, RestartPolicy
from tests.fixtures.fake_host.host import FakeHost
from tests.fixtures.fake_host.runtime import FakeRuntime
from tests.fixtures.fake_host.specs import container_id, container_spec

BOX = container_id(1)
SOON = RestartPolicy(condition=RestartCondition.ALWAYS, initial_delay=0.01, max_delay=0.05)
AFTER_THIS_ONE = RestartPolicy(condition=RestartCondition.ALWAYS, initial_delay=2, max_delay=2)  # executor has ended
LATER = RestartPolicy(condition=RestartCondition.ALWAYS, initial_delay=60)


async def _run(executor: Executor, policy: RestartPolicy, *, number: int = 1, **more: object) -> None:
    spec: ContainerSpec = replace(container_spec(number), restart_policy=policy, **more)  # type: ignore[arg-type]  # as the fields are
    await container_create(executor.node, spec)
    await container_start(executor.node, container_id=spec.id, start_id="s1")


async def _until(executor: Executor, holds: Callable[[JournalEntry], bool]) -> JournalEntry:
    async with asyncio.timeout(60):
        async for entry in executor.node.journal.follow(0):
            if holds(entry):
                return entry
    raise AssertionError


def _starts(number: int, box: str = BOX) -> Callable[[JournalEntry], bool]:
    """The policy's start of that number."""
    return lambda entry: (
        entry.container_id == box and isinstance(entry.event, Started) and entry.event.restart_count == number
    )


async def _pending(executor: Executor, host: FakeHost) -> None:
    await _run(executor, LATER)
    watch = executor.node.supervisor.watched(BOX)
    assert watch is not None
    host.runtime.end(BOX, code=3)
    async with asyncio.timeout(60):
        await watch.ended
    async with executor.node.locks.hold(BOX):
        assert executor.node.records.get(BOX).phase is Phase.RESTARTING


async def test_it_is_started_again_and_again(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor, SOON)
        for number in (1, 2, 3):
            host.runtime.end(BOX, code=0)
            await _until(executor, _starts(number))
        assert executor.node.records.get(BOX).restart.count == 3
        await container_stop(executor.node, container_id=BOX, signal=signal.SIGTERM, timeout=5)
        assert executor.node.records.get(BOX).phase is Phase.STOPPED
        await container_start(executor.node, container_id=BOX, start_id="s2")
        assert executor.node.records.get(BOX).restart.count == 0


async def _stop(executor: Executor) -> None:
    entry = await container_stop(executor.node, container_id=BOX, signal=signal.SIGTERM, timeout=5)
    assert entry is not None
    assert entry.event == RestartCancelled()
    assert await container_stop(executor.node, container_id=BOX, signal=signal.SIGTERM, timeout=5) is None


async def _kill(executor: Executor) -> None:
    await container_signal(executor.node, container_id=BOX, signal=signal.SIGKILL)
    with pytest.raises(FailedPrecondition):
        await container_signal(executor.node, container_id=BOX, signal=signal.SIGKILL)


@pytest.mark.parametrize("verb", [_stop, _kill])
async def test_a_pending_restart_is_called_off(host: FakeHost, verb: Callable[[Executor], Awaitable[None]]) -> None:
    async with host.executor() as executor:
        await _pending(executor, host)
        await verb(executor)
        record = executor.node.records.get(BOX)
        assert (record.phase, record.stopped, record.restart.next_start) == (Phase.STOPPED, True, None)
        # The end stays known, whatever came after it.
        assert record.last is not None
        assert isinstance(record.last.event, Exited)


async def test_a_removal_calls_it_off(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _pending(executor, host)
        await container_remove(executor.node, BOX)
        assert executor.node.records.find(BOX) is None
        assert host.traces(BOX) == []


async def test_a_start_does_not_wait(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _pending(executor, host)
        entry = await container_start(executor.node, container_id=BOX, start_id="s2")
        assert isinstance(entry.event, Started)
        assert (entry.event.start_id, entry.event.restart_count) == ("s2", 0)


async def test_a_start_that_the_policy_forestalled_is_the_policys(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor, SOON)
        host.runtime.end(BOX, code=0)
        started = await _until(executor, _starts(1))
        assert await container_start(executor.node, container_id=BOX, start_id="s2") == started


async def test_what_fails_to_start_is_tried_again(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not the start that a client asked for: it has the answer."""
    failures = 2

    async def full(*_: object, **__: object) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            raise ResourceExhausted("no address is free")
        return await create(BOX, mode=container_spec().network_mode)

    async with host.executor() as executor:
        await _run(executor, SOON)
        create = host.network.create
        monkeypatch.setattr(type(host.network), "create", full)
        host.runtime.end(BOX, code=1)
        entry = await _until(executor, _starts(3))
        entries = [each async for each in _entries(executor, entry.sequence)]
        failed = [each.event for each in entries if isinstance(each.event, StartFailure)]
        assert [(event.message, event.next_start is not None) for event in failed] == [("no address is free", True)] * 2
        await container_stop(executor.node, container_id=BOX, signal=signal.SIGTERM, timeout=5)
        failures = 1
        with pytest.raises(ResourceExhausted):
            await container_start(executor.node, container_id=BOX, start_id="s9")
        assert executor.node.records.get(BOX).phase is Phase.STOPPED


async def _entries(executor: Executor, last: int):  # type: ignore[no-untyped-def]  # an async generator of entries
    async for entry in executor.node.journal.follow(0):
        yield entry
        if entry.sequence == last:
            return


async def test_a_new_executor_goes_on_with_it(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor, AFTER_THIS_ONE)
        host.runtime.end(BOX, code=3)
        await _until(executor, lambda entry: isinstance(entry.event, Exited))
    async with host.executor() as executor:
        assert executor.node.records.get(BOX).phase is Phase.RESTARTING
        await _until(executor, _starts(1))


async def test_an_interrupted_restart_is_tried_again(host: FakeHost) -> None:
    """As a crash in the middle of a start leaves it."""
    async with host.executor() as executor:
        await _run(executor, AFTER_THIS_ONE)
        await executor.node.records.update(BOX, starting="restart-x")
        host.runtime.end(BOX, code=3)
        await _until(executor, lambda entry: isinstance(entry.event, Exited))
    async with host.executor() as executor:
        entry = await _until(
            executor, lambda entry: isinstance(entry.event, Started | StartFailure) and entry.sequence > 2
        )
        assert isinstance(entry.event, StartFailure)
        assert entry.event.next_start is not None
        await _until(executor, _starts(2))


async def test_after_a_reboot_dependents_come_after_what_they_depend_on(host: FakeHost) -> None:
    base, top = container_id(1), container_id(2)
    needs = Dependency(container_id=base, condition=DependencyCondition.STARTED, timeout=60)
    async with host.executor() as executor:
        await _run(executor, LATER)
        await _run(executor, LATER, number=2, dependencies=(needs,))
        await container_stop(executor.node, container_id=base, signal=signal.SIGTERM, timeout=5)
    host.boot_id = "boot-2"
    async with host.executor() as executor:
        await _until(executor, _starts(1, top))
        order = [
            entry.container_id async for entry in _entries(executor, executor.node.journal.head) if _is_start(entry)
        ]
        assert order == [base, top, base, top]


def _is_start(entry: JournalEntry) -> bool:
    return isinstance(entry.event, Started)


async def test_what_is_not_on_its_way_is_not_waited_for(host: FakeHost) -> None:
    needs = Dependency(container_id=container_id(2), condition=DependencyCondition.STARTED, timeout=60)
    async with host.executor() as executor:
        await container_create(executor.node, container_spec(2))
        await _run(executor, SOON, dependencies=(needs,))
        host.runtime.end(BOX, code=3)
        await _until(executor, _starts(1))


async def test_a_hundred_at_once_leave_the_executor_answering(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    async with host.executor() as executor:
        for number in range(1, 101):
            await _run(executor, SOON, number=number)
    host.boot_id = "boot-2"
    under_way, some, go = 0, asyncio.Event(), asyncio.Event()
    create = FakeRuntime.create

    async def held(self: FakeRuntime, bundle: Bundle) -> CreatedProcess:
        nonlocal under_way
        under_way += 1
        if under_way == 8:
            some.set()
        await go.wait()
        return await create(self, bundle)

    monkeypatch.setattr(FakeRuntime, "create", held)
    longest, before, stop = 0.0, 0.0, asyncio.Event()

    async def beat() -> None:
        nonlocal longest, before
        while not stop.is_set():
            await asyncio.sleep(0)
            # Of this thread alone: what others do to the machine is not the executor's fault.
            longest, before = max(longest, time.thread_time() - before), time.thread_time()

    async with host.executor() as executor:
        before = time.thread_time()
        heart = asyncio.create_task(beat())
        async with asyncio.timeout(60):
            await some.wait()
            await container_create(executor.node, container_spec(101))  # answered although those before it stand still
        assert under_way == 8
        go.set()
        for number in range(1, 101):
            await _until(executor, _starts(1, container_id(number)))
        stop.set()
        await heart
    assert longest < 0.5
