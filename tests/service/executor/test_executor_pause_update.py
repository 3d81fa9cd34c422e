"""Freezing, changing, measuring: the executor's gRPC face over a fake host, and what an executor that dies leaves."""

from __future__ import annotations

import signal

import grpc
import pytest
from slipway.executor.v1 import container_spec_pb2 as spec_pb
from slipway.executor.v1 import runtime_service_pb2 as pb

from executor_service.container_record import Phase
from executor_service.limits import Resources
from executor_service.restart import RestartCondition
from tests.fixtures.executor_client import Client, connected
from tests.fixtures.fake_host.host import FakeHost
from tests.fixtures.fake_host.specs import container_id

NOT_POSSIBLE = grpc.StatusCode.FAILED_PRECONDITION


async def running(client: Client) -> str:
    await client.create()
    await client.start(container_id(1))
    return container_id(1)


async def pause(client: Client, name: str) -> pb.PauseContainerResponse:
    return await client.runtime.PauseContainer(pb.PauseContainerRequest(container_id=name), timeout=60)


async def unpause(client: Client, name: str) -> pb.UnpauseContainerResponse:
    return await client.runtime.UnpauseContainer(pb.UnpauseContainerRequest(container_id=name), timeout=60)


async def test_pause_and_unpause_are_journaled_once(client: Client, host: FakeHost) -> None:
    name = await running(client)
    assert (await pause(client, name)).entry.WhichOneof("event") == "paused"
    assert not (await pause(client, name)).HasField("entry")
    assert name in host.cgroups.frozen
    assert (await client.snapshot()).containers[0].phase == pb.CONTAINER_PHASE_PAUSED
    assert (await unpause(client, name)).entry.WhichOneof("event") == "unpaused"
    assert not (await unpause(client, name)).HasField("entry")
    assert name not in host.cgroups.frozen
    assert (await client.snapshot()).containers[0].phase == pb.CONTAINER_PHASE_RUNNING


async def test_what_does_not_run_is_not_frozen(client: Client) -> None:
    await client.create()
    for call in (pause, unpause):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(client, container_id(1))
        assert caught.value.code() is NOT_POSSIBLE


async def test_sigkill_lets_a_frozen_one_go_before_its_end_is_told(client: Client, host: FakeHost) -> None:
    name = await running(client)
    await pause(client, name)
    request = pb.StopContainerRequest(container_id=name, signal=signal.SIGKILL, timeout=5)
    await client.runtime.StopContainer(request, timeout=60)
    assert name not in host.cgroups.frozen
    journal = client.executor.node.journal
    told = [entry.event.kind for entry in await journal._after(0)]
    assert told[-4:] == ["paused", "unpaused", "signaled", "exited"]


async def test_another_signal_waits_until_it_goes_on(client: Client, host: FakeHost) -> None:
    host.runtime.ignores.add(signal.SIGUSR1)
    name = await running(client)
    await pause(client, name)
    request = pb.SignalContainerRequest(container_id=name, signal=signal.SIGUSR1)
    await client.runtime.SignalContainer(request, timeout=60)
    assert name in host.cgroups.frozen


@pytest.mark.parametrize("recorded", [True, False])
async def test_the_next_executor_makes_true_what_is_on_record(host: FakeHost, recorded: bool) -> None:
    async with host.executor() as executor, connected(executor, host.paths.socket) as client:
        name = await running(client)
        if recorded:
            await pause(client, name)
            host.cgroups.frozen.clear()
        else:
            host.cgroups.frozen.add(name)
    async with host.executor() as executor:
        async with executor.node.locks.hold(name):
            assert executor.node.records.get(name).phase is (Phase.PAUSED if recorded else Phase.RUNNING)
        assert (name in host.cgroups.frozen) is recorded


async def test_an_update_holds_now_and_for_the_next_executor(host: FakeHost) -> None:
    policy = spec_pb.RestartPolicy(condition=spec_pb.RESTART_CONDITION_ALWAYS, multiplier=2)
    async with host.executor() as executor, connected(executor, host.paths.socket) as client:
        name = await running(client)
        request = pb.UpdateContainerRequest(
            container_id=name, resources=spec_pb.Resources(memory=1 << 26, pids_limit=9), restart_policy=policy
        )
        for _ in range(2):
            answer = await client.runtime.UpdateContainer(request, timeout=60)
            assert answer.entry.WhichOneof("event") == "updated"
        assert host.cgroups.limits[name] == Resources(memory=1 << 26, pids_limit=9)
    async with host.executor() as executor:
        spec = executor.node.records.get(name).spec
        assert spec is not None
        assert spec.resources == Resources(memory=1 << 26, pids_limit=9)
        assert spec.restart_policy.condition is RestartCondition.ALWAYS


async def test_a_refused_update_is_not_on_record(client: Client, host: FakeHost) -> None:
    name = await running(client)
    host.cgroups.refuses.append(Resources(memory=1 << 26))
    request = pb.UpdateContainerRequest(container_id=name, resources=spec_pb.Resources(memory=1 << 26))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.runtime.UpdateContainer(request, timeout=60)
    assert caught.value.code() is NOT_POSSIBLE
    record = client.executor.node.records.get(name)
    assert record.spec is not None
    assert record.spec.resources == Resources()


async def test_bad_limits_are_all_named(client: Client) -> None:
    await client.create()
    wanted = spec_pb.Resources(memory=-1, cpuset_cpus="0;1", blkio_weight=5, blkio_read_bps=[spec_pb.DeviceNumber()])
    request = pb.UpdateContainerRequest(container_id=container_id(1), resources=wanted)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.runtime.UpdateContainer(request, timeout=60)
    said = caught.value.details() or ""
    for field in ("memory", "cpuset_cpus", "blkio_read_bps[0].path", "blkio_read_bps[0].value"):
        assert f"resources.{field}: " in said


async def test_statistics_and_processes(client: Client) -> None:
    name = await running(client)
    await client.create(2)
    for ids in ([], [name, container_id(2), "f" * 64]):
        answer = await client.runtime.ReadStats(pb.ReadStatsRequest(container_ids=ids), timeout=60)
        assert [(stats.container_id, stats.cpu_usage) for stats in answer.containers] == [(name, 5)]
    listed = await client.runtime.ListProcesses(pb.ListProcessesRequest(container_id=name), timeout=60)
    assert [list(process.command) for process in listed.processes] == [["sleep", "9"]]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.runtime.ListProcesses(pb.ListProcessesRequest(container_id=container_id(2)), timeout=60)
    assert caught.value.code() is NOT_POSSIBLE
