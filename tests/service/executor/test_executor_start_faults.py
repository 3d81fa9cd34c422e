"""A start that fails, is cancelled or is late at any step leaves nothing, and another one succeeds. Over fakes, where
every step can be reached in milliseconds; the same on the real kernel is an integration test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from common.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    SlipwayError,
    StartFailed,
    Unavailable,
)
from executor_service.container import EndpointSpec, NetworkMode
from executor_service.container_record import Phase
from executor_service.conversion.snapshot import snapshot_to_proto
from executor_service.executor import Executor
from executor_service.journal_entries import Started, StartFailure
from executor_service.network.network import DEFAULT_NETWORK
from executor_service.operations.container_create import container_create
from executor_service.operations.container_list import container_list
from executor_service.operations.container_remove import container_remove
from executor_service.operations.container_start import container_start
from executor_service.ports import PortProtocol, PublishedPort
from tests.fixtures.executor_faults import START_STEPS, stepped
from tests.fixtures.fake_host.host import FakeHost
from tests.fixtures.fake_host.specs import container_spec

_PORT = PublishedPort(host_ip="", host_port=0, host_port_last=0, container_port=80, protocol=PortProtocol.TCP)
_SPEC = replace(
    container_spec(),
    network_mode=NetworkMode.BRIDGE,
    endpoints=(EndpointSpec(network_id=DEFAULT_NETWORK),),
    published_ports=(_PORT,),
)
_UNDOABLE = [step for step in START_STEPS if step != "commit"]


class Faults:
    """Acts once at each of the points that are armed."""

    def __init__(self) -> None:
        self._armed: dict[str, BaseException | asyncio.Event] = {}
        self.reached = asyncio.Event()

    async def __call__(self, point: str) -> None:
        match self._armed.pop(point, None):
            case asyncio.Event() as release:
                self.reached.set()
                await release.wait()
            case BaseException() as error:
                raise error

    def fail(self, point: str, error: BaseException) -> None:
        self._armed[point] = error

    def fail_all(self, errors: Mapping[str, BaseException]) -> None:
        self._armed.update(errors)

    def hold(self, point: str) -> asyncio.Event:
        """Stop there until the event is set."""
        release = asyncio.Event()
        self._armed[point] = release
        return release

    @property
    def spent(self) -> bool:
        return not self._armed


@pytest.fixture
def faults() -> Faults:
    return Faults()


@asynccontextmanager
async def _executor(host: FakeHost, faults: Faults) -> AsyncIterator[Executor]:
    async with host.database() as database, host.executor(seams=stepped(host.seams(database), faults)) as executor:
        await container_create(executor.node, _SPEC)
        yield executor
        assert faults.spent, "a fault was armed at a point that was never reached"


async def _start(executor: Executor, start_id: str = "s1") -> object:
    operation = container_start(executor.node, container_id=_SPEC.id, start_id=start_id)
    return (await executor.operations.run(operation, abandoned="cancel")).event


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", _UNDOABLE)
async def test_a_failed_step_undoes_the_ones_before_it(host: FakeHost, faults: Faults, step: str, when: str) -> None:
    async with _executor(host, faults) as executor:
        faults.fail(f"{step}:{when}", StartFailed("no", exit_code=126))
        failure = await _start(executor)
        assert isinstance(failure, StartFailure)
        assert failure.exit_code == 126
        assert host.traces(_SPEC.id) == []
        record = executor.node.records.get(_SPEC.id)
        assert (record.phase, record.starting, record.run) == (Phase.STOPPED, "", None)
        assert isinstance(await _start(executor, "s2"), Started)


@pytest.mark.parametrize("step", START_STEPS)
async def test_a_shortage_of_the_host_is_an_error_and_may_be_repeated(
    host: FakeHost, faults: Faults, step: str
) -> None:
    async with _executor(host, faults) as executor:
        faults.fail(f"{step}:before", OSError(28, "No space left on device"))
        with pytest.raises(ResourceExhausted, match="disk is full"):
            await _start(executor)
        assert host.traces(_SPEC.id) == []
        record = executor.node.records.get(_SPEC.id)
        assert (record.phase, record.starting, record.last) == (Phase.CREATED, "", None)
        assert isinstance(await _start(executor), Started), "the same start_id may be used again"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", _UNDOABLE)
async def test_a_cancelled_start_is_undone(host: FakeHost, faults: Faults, step: str, when: str) -> None:
    async with _executor(host, faults) as executor:
        faults.hold(f"{step}:{when}")
        start = asyncio.ensure_future(_start(executor))
        await faults.reached.wait()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        async with executor.node.locks.hold(_SPEC.id):
            assert host.traces(_SPEC.id) == []
            assert executor.node.records.get(_SPEC.id).phase is Phase.CREATED
        assert isinstance(await _start(executor), Started)


async def test_a_start_cancelled_at_its_commit_is_done(host: FakeHost, faults: Faults) -> None:
    async with _executor(host, faults) as executor:
        release = faults.hold("commit:before")
        start = asyncio.ensure_future(_start(executor))
        await faults.reached.wait()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        release.set()
        async with executor.node.locks.hold(_SPEC.id):
            assert executor.node.records.get(_SPEC.id).phase is Phase.RUNNING
        assert executor.node.supervisor.watched(_SPEC.id) is not None
        assert isinstance(await _start(executor), Started)
        assert len(host.runtime.exits) == 1


@pytest.mark.parametrize("step", _UNDOABLE)
async def test_a_start_that_takes_too_long_is_undone(host: FakeHost, faults: Faults, step: str) -> None:
    host.limits = replace(host.limits, start=0.5)
    async with _executor(host, faults) as executor:
        faults.hold(f"{step}:before")
        with pytest.raises(DeadlineExceeded, match="undone"):
            await _start(executor)
        assert host.traces(_SPEC.id) == []
        assert isinstance(await _start_in_time(executor), Started)


async def _start_in_time(executor: Executor) -> object:
    """Again and again: on a busy machine it takes too long once more."""
    while True:
        with contextlib.suppress(DeadlineExceeded):
            return await _start(executor)


@pytest.mark.parametrize("step", ["leave", "unmount", "unbundle", "delete"])
async def test_an_undo_goes_on_after_a_step_of_it_failed(host: FakeHost, faults: Faults, step: str) -> None:
    left = {"leave": "sandbox", "unmount": "mount", "unbundle": "bundle", "delete": "process"}[step]
    async with _executor(host, faults) as executor:
        faults.fail_all({"start:before": StartFailed("no", exit_code=128), f"{step}:before": RuntimeError("cannot")})
        assert isinstance(await _start(executor), StartFailure)
        assert host.traces(_SPEC.id) == [left]
        assert isinstance(await _start(executor, "s2"), Started), "the next start cleans up first"


async def test_a_full_disk_after_a_failed_start_is_put_right_by_the_next(
    host: FakeHost, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _executor(host, faults) as executor:
        faults.fail("start_failed:before", ResourceExhausted("the disk is full"))

        async def refuse(*_: object, **__: object) -> None:
            raise StartFailed("no", exit_code=127)

        monkeypatch.setattr(type(host.runtime), "start", refuse)
        with pytest.raises(ResourceExhausted):
            await _start(executor)
        assert executor.node.records.get(_SPEC.id).starting == "s1"
        monkeypatch.undo()
        assert isinstance(await _start(executor, "s2"), Started)
        outcome = await executor.node.journal.outcome(_SPEC.id, "s1")
        assert outcome is not None
        assert isinstance(outcome.event, StartFailure)


async def test_an_image_that_is_refused_is_an_outcome(host: FakeHost, faults: Faults) -> None:
    async with _executor(host, faults) as executor:
        faults.fail("mount:before", FailedPrecondition("/dev is a symlink", resource_type="image"))
        failure = await _start(executor)
        assert isinstance(failure, StartFailure)
        assert (failure.exit_code, failure.message) == (128, "/dev is a symlink")


async def test_a_start_waits_for_the_cleanup_of_the_run_before(host: FakeHost, faults: Faults) -> None:
    async with _executor(host, faults) as executor:
        await _start(executor)
        watch = executor.node.supervisor.watched(_SPEC.id)
        assert watch is not None
        release = faults.hold("delete:before")
        host.runtime.end(_SPEC.id, code=0)
        await watch.ended
        again = asyncio.ensure_future(_start(executor, "s2"))
        await faults.reached.wait()
        assert not again.done()
        assert executor.node.records.get(_SPEC.id).phase is Phase.STOPPED, "the exit is known before the cleanup"
        release.set()
        assert isinstance(await again, Started)
        assert host.traces(_SPEC.id) == ["mount", "sandbox", "ports", "bundle", "process"]


@pytest.mark.parametrize("step", ["removing", "delete", "leave", "unmount", "unbundle", "layer", "files", "row"])
async def test_a_removal_that_failed_goes_on_when_it_is_repeated(host: FakeHost, faults: Faults, step: str) -> None:
    async with _executor(host, faults) as executor:
        await _start(executor)
        faults.fail(f"{step}:before", Unavailable("the disk has an error"))
        with pytest.raises(SlipwayError, match=r"cleaned up|the disk has an error"):
            await container_remove(executor.node, _SPEC.id)
        if step != "removing":
            with pytest.raises(FailedPrecondition, match="being removed"):
                await _start(executor, "s2")
        [told] = snapshot_to_proto(container_list(executor.node)).containers
        assert told.removing is (step != "removing")
        await container_remove(executor.node, _SPEC.id)
        assert executor.node.records.find(_SPEC.id) is None
        assert host.traces(_SPEC.id) == []
        assert not host.snapshots.prepared


async def test_a_failed_create_leaves_no_layer(host: FakeHost, faults: Faults) -> None:
    async with host.database() as database, host.executor(seams=stepped(host.seams(database), faults)) as executor:
        for step in ("prepare:after", "row-insert:before"):
            faults.fail(step, OSError(28, "No space left on device"))
            with pytest.raises(ResourceExhausted):
                await container_create(executor.node, _SPEC)
            assert not host.snapshots.prepared
        await container_create(executor.node, _SPEC)
