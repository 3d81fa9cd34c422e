"""What a new executor finds, and what it makes of it. The fake host outlives the executors, as a real one does."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import START_INTERRUPTED, FailedPrecondition
from executor_service.container_record import Phase
from executor_service.executor import Executor
from executor_service.journal_entries import Exited, JournalEntry, Started, StartFailure
from executor_service.network.sandbox import Sandbox
from executor_service.operations.container_create import container_create
from executor_service.operations.container_remove import container_remove
from executor_service.operations.container_signal import container_signal
from executor_service.operations.container_start import container_start
from executor_service.supervision import adoption
from tests.fixtures.fake_host.host import FACTS, FakeHost
from tests.fixtures.fake_host.runtime import FakeRuntime
from tests.fixtures.fake_host.specs import container_id, container_spec

_BOX = container_id(1)


async def _run(executor: Executor, number: int = 1, start_id: str = "s1") -> None:
    await container_create(executor.node, container_spec(number))
    await container_start(executor.node, container_id=container_id(number), start_id=start_id)


async def _settled(executor: Executor, box: str = _BOX) -> None:
    """Whatever the executor does by itself to the container is done."""
    async with executor.node.locks.hold(box):
        return


async def _end(executor: Executor, box: str = _BOX) -> JournalEntry | None:
    watch = executor.node.supervisor.watched(box)
    assert watch is not None
    async with asyncio.timeout(60):
        return await asyncio.shield(watch.ended)


async def test_what_runs_goes_on_and_is_watched(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor)
        journal_id, node_id = executor.node.journal.id, executor.node.journal.node_id
    async with host.executor() as executor:
        assert host.traces(_BOX) == ["mount", "sandbox", "bundle", "process"]
        assert host.network.kept == {_BOX}
        assert (executor.node.journal.id, executor.node.journal.node_id) == (journal_id, node_id)
        assert executor.node.records.get(_BOX).phase is Phase.RUNNING
        repeated = await container_start(executor.node, container_id=_BOX, start_id="s1")
        assert repeated.sequence == 1
        end = asyncio.ensure_future(_end(executor))
        await asyncio.sleep(0)
        await container_signal(executor.node, container_id=_BOX, signal=signal.SIGTERM)
        entry = await end
        assert entry is not None
        assert entry.event == Exited(start_id="s1", exit_code=143)


async def test_an_exit_nobody_watched_is_told_once_with_its_code(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor)
    host.runtime.end(_BOX, code=7)
    for _ in range(2):
        async with host.executor() as executor:
            if executor.node.supervisor.watched(_BOX) is not None:
                await _end(executor)
            await _settled(executor)
            record = executor.node.records.get(_BOX)
            assert record.phase is Phase.STOPPED
            assert record.last is not None
            assert (record.last.sequence, record.last.event) == (2, Exited(start_id="s1", exit_code=7))
            assert host.traces(_BOX) == []
            assert executor.node.journal.head == 2


async def test_a_lost_exit_code_is_not_invented(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor)
    host.runtime.exits.clear()
    async with host.executor() as executor:
        entry = await _end(executor)
        assert entry is not None
        assert isinstance(entry.event, Exited)
        assert entry.event.exit_code is None
        assert "monitor" in entry.event.error


async def test_after_a_reboot_nothing_is_believed_to_run(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor)
    host.boot_id = "boot-2"
    # The pids belong to other processes by now.
    async with host.executor() as executor:
        record = executor.node.records.get(_BOX)
        assert record.phase is Phase.STOPPED
        assert record.last is not None
        assert isinstance(record.last.event, Exited)
        assert record.last.event.exit_code is None
        assert "restarted" in record.last.event.error
        assert host.network.kept == set()
        assert executor.node.supervisor.watched(_BOX) is None
        await _settled(executor)
        assert not host.runtime.signals
        entry = await container_start(executor.node, container_id=_BOX, start_id="s2")
        assert isinstance(entry.event, Started)


async def test_an_interrupted_start_is_undone_and_told(host: FakeHost) -> None:
    async with host.executor() as executor:
        await container_create(executor.node, container_spec())
        await executor.node.records.update(_BOX, starting="s1")
        await host.snapshots.mount(_BOX)
        host.bundles.bundles.add(_BOX)
    async with host.executor() as executor:
        await _settled(executor)
        assert host.traces(_BOX) == []
        entry = await container_start(executor.node, container_id=_BOX, start_id="s1")
        assert isinstance(entry.event, StartFailure)
        assert entry.event.exit_code == 128
        assert "killed in the middle" in entry.event.message
        assert entry.event.reason == START_INTERRUPTED
        assert executor.node.records.get(_BOX).phase is Phase.STOPPED


async def test_a_mount_that_is_not_on_record_is_undone(host: FakeHost) -> None:
    async with host.executor() as executor:
        await container_create(executor.node, container_spec())
    await host.snapshots.mount(_BOX)
    async with host.executor() as executor:
        await _settled(executor)
        assert host.traces(_BOX) == []


async def test_an_interrupted_removal_is_finished(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor)
        await executor.node.records.update(_BOX, removing=True)
    async with host.executor() as executor:
        await _settled(executor)
        assert executor.node.records.find(_BOX) is None
        assert host.traces(_BOX) == []
        assert not host.snapshots.prepared
        assert not host.bundles.files


async def test_a_removal_interrupted_between_exit_and_cleanup_is_finished(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor)
        await executor.node.records.update(_BOX, removing=True, phase=Phase.STOPPED, run=None)
    async with host.executor() as executor:
        await _settled(executor)
        assert executor.node.records.find(_BOX) is None
        assert host.traces(_BOX) == []


async def test_a_container_whose_runtime_is_configured_no_more_can_be_removed(host: FakeHost) -> None:
    async with host.executor() as executor:
        await container_create(executor.node, replace(container_spec(), runtime="runc"))
        await container_start(executor.node, container_id=_BOX, start_id="s1")
    host.facts = replace(FACTS, runtimes=["crun"])
    host.runtime.known = {"", "crun"}
    async with host.executor() as executor:
        await container_remove(executor.node, _BOX)
        assert host.traces(_BOX) == []


async def test_orphans_are_removed(host: FakeHost) -> None:
    host.snapshots.prepared[_BOX] = ""
    host.bundles.files.add(container_id(2))
    host.bundles.bundles.add(container_id(3))
    host.network.sandboxes[container_id(4)] = Sandbox(
        id=container_id(4), mode=container_spec().network_mode, netns_path="/x"
    )
    async with host.executor() as executor:
        for number in (1, 2, 3):
            await _settled(executor, container_id(number))
        assert not host.snapshots.prepared
        assert not host.bundles.files
        assert not host.bundles.bundles
        assert not host.network.sandboxes


async def test_a_broken_record_holds_nobody_hostage(host: FakeHost) -> None:
    async with host.executor() as executor:
        await _run(executor, 1)
        await _run(executor, 2)
    with sqlite3.connect(host.paths.database) as connection:
        connection.execute("UPDATE containers SET spec = '{' WHERE id = ?", (_BOX,))
    connection.close()
    async with host.executor() as executor:
        broken = executor.node.records.get(_BOX)
        assert broken.phase is Phase.BROKEN
        assert "cannot be read" in broken.error
        with pytest.raises(FailedPrecondition, match="only removing it is possible"):
            await container_start(executor.node, container_id=_BOX, start_id="s2")
        assert executor.node.records.get(container_id(2)).phase is Phase.RUNNING
        assert host.network.kept == {_BOX, container_id(2)}
        await container_remove(executor.node, _BOX)
        assert executor.node.records.find(_BOX) is None
        assert host.traces(_BOX) == []
        assert host.traces(container_id(2)) == ["mount", "sandbox", "bundle", "process"]


async def test_a_stuck_container_does_not_keep_the_executor_from_serving(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with host.executor() as executor:
        await container_create(executor.node, container_spec())
        await executor.node.records.update(_BOX, starting="s1")
        host.bundles.bundles.add(_BOX)
    stuck, original = asyncio.Event(), type(host.runtime).delete

    async def wait(*_: object, **__: object) -> None:
        await stuck.wait()

    monkeypatch.setattr(type(host.runtime), "delete", wait)
    async with host.executor() as executor:
        await _run(executor, 2)
        assert executor.node.records.get(container_id(2)).phase is Phase.RUNNING
        monkeypatch.setattr(type(host.runtime), "delete", original)
        stuck.set()
        await _settled(executor)


async def test_many_are_put_right_some_at_a_time_and_in_order(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait are not to be used meanwhile."""
    async with host.executor() as executor:
        for number in range(1, 41):
            await container_create(executor.node, container_spec(number))
            await executor.node.records.update(container_id(number), starting="s1")
            host.bundles.bundles.add(container_id(number))
    begun: list[str] = []
    some, go = asyncio.Event(), asyncio.Event()
    delete = FakeRuntime.delete

    async def held(self: FakeRuntime, box: str, *, bundle: Path, runtime: str) -> None:
        begun.append(box)
        if len(begun) == 16:
            some.set()
        await go.wait()
        await delete(self, box, bundle=bundle, runtime=runtime)

    monkeypatch.setattr(FakeRuntime, "delete", held)
    async with host.executor() as executor:
        found = [record.id for record in executor.node.records.all()]
        last = asyncio.ensure_future(container_start(executor.node, container_id=found[-1], start_id="s2"))
        async with asyncio.timeout(60):
            await some.wait()
            await _run(executor, 41)  # answered although those before it stand still
        assert sorted(begun) == sorted(found[:16])
        assert not last.done()
        go.set()
        assert isinstance((await last).event, Started)
        for box in found[:-1]:
            await _settled(executor, box)
            assert host.traces(box) == []


async def test_those_that_are_stuck_do_not_keep_the_others_from_their_turn(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adoption, "_PATIENCE", 0.2)
    async with host.executor() as executor:
        for number in range(1, 18):
            await container_create(executor.node, container_spec(number))
            await executor.node.records.update(container_id(number), starting="s1")
            host.bundles.bundles.add(container_id(number))
    begun, go = 0, asyncio.Event()
    delete = FakeRuntime.delete

    async def held(self: FakeRuntime, box: str, *, bundle: Path, runtime: str) -> None:
        nonlocal begun
        begun += 1
        if begun <= 16:
            await go.wait()
        await delete(self, box, bundle=bundle, runtime=runtime)

    monkeypatch.setattr(FakeRuntime, "delete", held)
    async with host.executor() as executor:
        last = executor.node.records.all()[-1].id
        ended = await asyncio.wait_for(container_start(executor.node, container_id=last, start_id="s2"), 60)
        assert isinstance(ended.event, Started)
        assert not go.is_set()
        go.set()
        for number in range(1, 17):
            await _settled(executor, container_id(number))
