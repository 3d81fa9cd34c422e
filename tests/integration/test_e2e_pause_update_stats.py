"""Running containers frozen, changed, measured and looked into, as the kernel has them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

import grpc
import pytest
from slipway.v1 import container_pb2, resources_pb2
from slipway.v1 import container_service_pb2 as pb

from tests.fixtures.api import refused
from tests.fixtures.cgroup_files import V1, cgroup_file, needs_v1
from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024


def frozen(engine: Slipway, container: str) -> bool:
    if V1:
        return cgroup_file(engine, container, "freezer.state") == "FROZEN"
    return "frozen 1" in cgroup_file(engine, container, "cgroup.events")


async def pause(engine: Slipway, container: str) -> None:
    await engine.containers.PauseContainer(pb.PauseContainerRequest(container=container), timeout=60)


async def unpause(engine: Slipway, container: str) -> None:
    await engine.containers.UnpauseContainer(pb.UnpauseContainerRequest(container=container), timeout=60)


async def update(engine: Slipway, container: str, **fields: object) -> list[str]:
    request = pb.UpdateContainerRequest(container=container, resources=resources_pb2.Resources(**fields))  # type: ignore[arg-type]
    return list((await engine.containers.UpdateContainer(request, timeout=60)).warnings)


async def cpu_time(engine: Slipway, container: str) -> int:
    processes = await engine.containers.ListProcesses(pb.ListProcessesRequest(container=container), timeout=60)
    return sum(process.cpu_time for process in processes.processes)


async def test_a_paused_container_stands_still_through_the_services_deaths(engine: Slipway) -> None:
    container = await engine.run("sh", "-c", "while :; do :; done", name="still")
    await pause(engine, container)
    assert frozen(engine, container)
    assert (await engine.inspect(container)).state.status == container_pb2.CONTAINER_STATUS_PAUSED
    listed = (await engine.containers.ListContainers(pb.ListContainersRequest())).containers[0]
    assert listed.status.endswith("(Paused)")
    before = await cpu_time(engine, container)

    await engine.executor.kill()
    await engine.api.kill()
    await engine.executor.start()
    await engine.api.start()
    await engine.node_back()

    assert frozen(engine, container)
    assert (await engine.inspect(container)).state.paused
    assert await cpu_time(engine, container) == before
    refusal = await refused(engine.containers.PauseContainer(pb.PauseContainerRequest(container=container)))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "is already paused" in refusal.message
    await unpause(engine, container)
    assert not frozen(engine, container)
    assert (await engine.inspect(container)).state.status == container_pb2.CONTAINER_STATUS_RUNNING
    await engine.remove(container)


@pytest.mark.parametrize("how", ["kill", "stop", "remove"])
async def test_what_is_frozen_can_be_ended_at_once(engine: Slipway, how: str) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.1; done"
    container = await engine.run("sh", "-c", script)
    while b"ready" not in await engine.logs(container):
        await asyncio.sleep(0.02)
    await pause(engine, container)
    if how == "kill":
        await engine.kill(container)
        assert (await engine.inspect(container)).state.exit_code == 137
    elif how == "stop":
        await engine.containers.StopContainer(pb.StopContainerRequest(container=container, timeout=50), timeout=60)
        assert (await engine.inspect(container)).state.exit_code == 3
    else:
        await engine.remove(container)
    if how != "remove":
        assert not (await engine.inspect(container)).state.paused
        await engine.remove(container)


@needs_v1
async def test_limits_change_at_once_and_for_the_next_start(engine: Slipway) -> None:
    limits = resources_pb2.Resources(memory=64 * MIB, cpu_shares=256, cpuset_cpus="0")
    container = await engine.run("sleep", "300", resources=limits, config={"stop_signal": "KILL"})

    assert await update(engine, container, memory=32 * MIB, memory_swap=40 * MIB) == []
    assert cgroup_file(engine, container, "memory.limit_in_bytes") == str(32 * MIB)
    assert cgroup_file(engine, container, "memory.memsw.limit_in_bytes") == str(40 * MIB)
    await update(
        engine, container, memory=256 * MIB, memory_swap=-1, nano_cpus=500_000_000, pids_limit=77, cpu_shares=900,
        cpuset_cpus="0-1", memory_reservation=16 * MIB, blkio_weight=200,
    )  # fmt: skip

    expected = {
        "memory.limit_in_bytes": str(256 * MIB),
        "memory.soft_limit_in_bytes": str(16 * MIB),
        "cpu.cfs_quota_us": "50000",
        "pids.max": "77",
        "cpu.shares": "900",
        "cpuset.cpus": "0-1",
        "blkio.bfq.weight": "200",
    }
    assert {name: cgroup_file(engine, container, name) for name in expected} == expected
    assert int(cgroup_file(engine, container, "memory.memsw.limit_in_bytes")) > 2**62
    await engine.kill(container)
    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()
    await engine.start(container)
    assert {name: cgroup_file(engine, container, name) for name in expected} == expected
    shown = (await engine.inspect(container)).host_config.resources
    assert (shown.memory, shown.memory_swap, shown.nano_cpus, shown.cpu_quota) == (256 * MIB, -1, 500_000_000, 0)
    await update(engine, container, pids_limit=-1)
    assert cgroup_file(engine, container, "pids.max") == "max"
    await engine.remove(container)


@needs_v1
async def test_what_the_kernel_refuses_changes_nothing(engine: Slipway) -> None:
    limits = resources_pb2.Resources(memory=128 * MIB, cpu_shares=256)
    script = "head -c 50m /dev/zero > /fill/x; echo full; sleep 300"
    container = await engine.run("sh", "-c", script, resources=limits, tmpfs={"/fill": "size=64m"})
    while b"full" not in await engine.logs(container):
        await asyncio.sleep(0.02)

    wanted = resources_pb2.Resources(memory=10 * MIB, memory_swap=10 * MIB, cpu_shares=999, pids_limit=5)
    request = pb.UpdateContainerRequest(container=container, resources=wanted)
    refusal = await refused(engine.containers.UpdateContainer(request, timeout=60))

    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "it uses more than 10485760 bytes of memory" in refusal.message
    assert cgroup_file(engine, container, "memory.limit_in_bytes") == str(128 * MIB)
    assert cgroup_file(engine, container, "memory.memsw.limit_in_bytes") == str(256 * MIB)
    assert cgroup_file(engine, container, "cpu.shares") == "256"
    assert cgroup_file(engine, container, "pids.max") == "max"
    shown = (await engine.inspect(container)).host_config.resources
    assert (shown.memory, shown.cpu_shares) == (128 * MIB, 256)
    await engine.remove(container)


def gaps(samples: Sequence[pb.ContainerStats]) -> list[float]:
    """Seconds between each two."""
    times = [sample.time.ToNanoseconds() / 1e9 for sample in samples]
    return [after - before for before, after in itertools.pairwise(times)]


async def test_statistics_of_one_that_works_and_one_that_sleeps(engine: Slipway) -> None:
    limits = resources_pb2.Resources(memory=64 * MIB, pids_limit=30)
    script = "ping -c 1 -W 1 $(ip route | awk '/default/ {print $3}') > /dev/null; while :; do :; done"
    busy = await engine.run("sh", "-c", script, name="busy", resources=limits, init=False)
    idle = await engine.run("sh", "-c", "head -c 1m /dev/zero > /x; sleep 300", name="idle", network_mode="none")
    seen: dict[str, list[pb.ContainerStats]] = {busy: [], idle: []}
    call = engine.containers.StreamStats(pb.StreamStatsRequest(), timeout=60)
    async for answer in call:
        for sample in answer.containers:
            seen[sample.id].append(sample)
        # A second apart, unless the machine is busy just then.
        if all(len(samples) >= 3 for samples in seen.values()) and any(0.8 < gap < 2.5 for gap in gaps(seen[busy])):
            break
    call.cancel()

    first, before, last = seen[busy][0], seen[busy][-2], seen[busy][-1]
    assert (first.name, first.cpu_percent) == ("busy", 0)
    assert last.cpu_usage > before.cpu_usage >= first.cpu_usage > 0
    # Of what the machine leaves it, which may be little.
    elapsed = last.time.ToNanoseconds() - before.time.ToNanoseconds()
    assert last.cpu_percent == pytest.approx(100 * (last.cpu_usage - before.cpu_usage) / elapsed, rel=0.1)
    assert last.cpu_percent > seen[idle][-1].cpu_percent
    assert (last.memory_limit, last.pids_limit, last.pids) == (64 * MIB, 30, 1)
    assert 0 < last.memory_usage < 64 * MIB
    assert last.networks["eth0"].tx_packets > 0
    assert last.online_cpus > 0
    quiet = seen[idle][-1]
    assert quiet.cpu_percent < 10
    assert quiet.memory_limit > 1024 * MIB
    assert dict(quiet.networks) == {}

    request = pb.StreamStatsRequest(containers=["busy"], once=True)
    assert [sample.id async for answer in engine.containers.StreamStats(request) for sample in answer.containers] == [
        busy
    ]
    await engine.kill(busy)
    with pytest.raises(grpc.aio.AioRpcError, match="is not running"):
        await engine.containers.StreamStats(request).read()
    for container in (busy, idle):
        await engine.remove(container)


async def test_processes_are_named_without_running_anything(engine: Slipway) -> None:
    began = time.time()
    script = "sleep 301 & sleep 302 & exec sleep 303"
    container = await engine.run("sh", "-c", script, config={"user": "1234"}, init=False)
    request = pb.ListProcessesRequest(container=container)
    async with asyncio.timeout(60):
        while True:
            found = (await engine.containers.ListProcesses(request)).processes
            begun = sorted(process.command[1] for process in found) == ["301", "302", "303"]
            if begun and {process.state for process in found} == {"S"}:
                break
            await asyncio.sleep(0.02)

    first = next(process for process in found if process.command == ["sleep", "303"])
    children = [process for process in found if process is not first]
    assert (first.pid, first.container_pid) == ((await engine.inspect(container)).state.pid, 1)
    assert [process.pid for process in found] == sorted(process.pid for process in found)
    assert {process.parent_pid for process in children} == {first.pid}
    assert {(process.uid, process.state, process.threads) for process in found} == {(1234, "S", 1)}
    assert all(process.memory > 0 and process.container_pid > 0 for process in found)
    assert began - 1 < first.started_at.ToNanoseconds() / 1e9 < time.time() + 1
    await engine.kill(container)
    refusal = await refused(engine.containers.ListProcesses(request))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    await engine.remove(container)
