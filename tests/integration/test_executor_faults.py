"""Every step of a start and of a removal, on the real kernel: failed, cancelled, late, and the executor killed at it.

Afterwards nothing of the container is on the host, its state is right, and repeating the call succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.executor.v1 import runtime_service_pb2 as pb

from tests.fixtures.executor import ExecutorProcess, executor_process
from tests.fixtures.executor_faults import REMOVE_STEPS, START_STEPS
from tests.fixtures.fault_server import FaultServer

_BEFORE_COMMIT = [step for step in START_STEPS if step != "commit"]
_POINTS = [f"{step}:{when}" for step in START_STEPS for when in ("before", "after")]


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[ExecutorProcess]:
    async with executor_process(faulty=True) as process:
        yield process


def _faults(executor: ExecutorProcess) -> FaultServer:
    assert executor.faults is not None
    return executor.faults


async def _phase(executor: ExecutorProcess, box: str) -> pb.ContainerPhase.ValueType:
    snapshot = await executor.snapshot(box)
    assert snapshot is not None
    return snapshot.phase


async def _runs_and_goes(executor: ExecutorProcess, box: str, start_id: str) -> None:
    """The container can be started and removed as if nothing had been."""
    entry = await executor.run(box, start_id)
    assert entry.HasField("started"), entry
    await executor.remove(box)
    assert await executor.traceless() == []


async def test_a_failed_step_leaves_nothing(executor: ExecutorProcess) -> None:
    for point in (point for point in _POINTS if not point.startswith("commit")):
        box = await executor.create()
        _faults(executor).arm(point, "refuse")
        entry = await executor.run(box)
        assert entry.start_failed.exit_code == 126, point
        assert await executor.traceless() == [], point
        assert await _phase(executor, box) == pb.CONTAINER_PHASE_STOPPED, point
        assert await executor.run(box) == entry, point
        await _runs_and_goes(executor, box, "s2")


async def test_a_shortage_at_a_step_is_an_error_that_may_be_repeated(executor: ExecutorProcess) -> None:
    for step in START_STEPS:
        box = await executor.create()
        _faults(executor).arm(f"{step}:before", "shortage")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await executor.run(box)
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, step
        assert await executor.traceless() == [], step
        assert await _phase(executor, box) == pb.CONTAINER_PHASE_CREATED, step
        await _runs_and_goes(executor, box, "s1")


async def test_a_cancelled_start_is_undone(executor: ExecutorProcess) -> None:
    for step in _BEFORE_COMMIT:
        box = await executor.create()
        _faults(executor).arm(f"{step}:after", "hang")
        start = asyncio.ensure_future(executor.run(box))
        await _faults(executor).reached()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        # Waits for the undo, which has the container's lock.
        await _runs_and_goes(executor, box, "s2")


async def test_a_start_past_its_deadline_is_undone(executor: ExecutorProcess) -> None:
    for step in _BEFORE_COMMIT:
        box = await executor.create()
        _faults(executor).arm(f"{step}:before", "hang")
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await executor.run(box, timeout=0.5)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED, step
        await executor.runtime.StopContainer(
            pb.StopContainerRequest(container_id=box, signal=signal.SIGTERM, timeout=0), timeout=20
        )
        assert await executor.traceless() == [], step
        assert await _phase(executor, box) == pb.CONTAINER_PHASE_CREATED, step
        await executor.remove(box)


async def test_a_start_cancelled_at_its_commit_is_done(executor: ExecutorProcess) -> None:
    box = await executor.create()
    _faults(executor).arm("commit:before", "hang")
    start = asyncio.ensure_future(executor.run(box))
    await _faults(executor).reached()
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    _faults(executor).release()
    entry = await executor.run(box)
    assert Path(f"/proc/{entry.started.pid}").exists()
    assert [each.WhichOneof("event") for each in await executor.entries(box)] == ["started"]


@pytest.mark.parametrize("point", _POINTS)
async def test_an_executor_killed_in_a_start_leaves_nothing_half(executor: ExecutorProcess, point: str) -> None:
    box, neighbour = await executor.create(), await executor.create()
    neighbours_pid = (await executor.run(neighbour)).started.pid
    _faults(executor).arm(point, "kill")
    with pytest.raises(grpc.aio.AioRpcError):
        await executor.run(box)
    await executor.ended()
    await executor.start()
    entry = await executor.run(box)  # the same start_id: its outcome, or a start of its own
    if point == "commit:after":
        assert entry.HasField("started"), "what is committed is done"
        assert Path(f"/proc/{entry.started.pid}").exists()
    elif entry.HasField("start_failed"):
        assert entry.start_failed.exit_code == 128
        assert "killed in the middle" in entry.start_failed.message
        assert await _phase(executor, box) == pb.CONTAINER_PHASE_STOPPED
        assert (await executor.run(box, "s2")).HasField("started")
    await executor.remove(box)
    assert Path(f"/proc/{neighbours_pid}").exists()
    await executor.remove(neighbour)
    assert await executor.traceless() == []


@pytest.mark.parametrize("point", [f"{step}:{when}" for step in REMOVE_STEPS for when in ("before", "after")])
async def test_an_executor_killed_in_a_removal_goes_on_with_it(executor: ExecutorProcess, point: str) -> None:
    box = await executor.create()
    await executor.run(box)
    _faults(executor).arm(point, "kill")
    with pytest.raises(grpc.aio.AioRpcError):
        await executor.remove(box)
    await executor.ended()
    await executor.start()
    await executor.remove(box)
    assert await executor.snapshot(box) is None
    assert await executor.traceless() == []
    assert not list(executor.paths.containers.iterdir())


@pytest.mark.parametrize("point", ["prepare:before", "prepare:after", "row-insert:before", "row-insert:after"])
async def test_an_executor_killed_in_a_create_leaves_all_or_nothing(executor: ExecutorProcess, point: str) -> None:
    spec = executor.spec()
    _faults(executor).arm(point, "kill")
    with pytest.raises(grpc.aio.AioRpcError):
        await executor.create(spec=spec)
    await executor.ended()
    await executor.start()
    assert (await executor.snapshot(spec.id) is not None) == (point == "row-insert:after")
    await _runs_and_goes(executor, await executor.create(spec=spec), "s1")
    assert not await _layers(executor)


async def _layers(executor: ExecutorProcess) -> list[Path]:
    return list((executor.paths.storage / "containers").iterdir())


@pytest.mark.parametrize("point", ["exited:before", "exited:after", "delete:before", "leave:before", "unmount:before"])
async def test_an_executor_killed_after_an_exit_tells_it_once(executor: ExecutorProcess, point: str) -> None:
    box = await executor.create("sh", "-c", "exit 5")
    _faults(executor).arm(point, "kill")
    with contextlib.suppress(grpc.aio.AioRpcError):  # it may be killed before the start is answered
        await executor.run(box)
    await executor.ended()
    await executor.start()
    exited = await executor.exited(box)
    assert exited.exited.exit_code == 5
    assert await executor.traceless() == []
    snapshot = await executor.snapshot(box)
    assert snapshot is not None
    assert snapshot.last == exited
    assert [entry.WhichOneof("event") for entry in await executor.entries(box)] == ["started", "exited"]
