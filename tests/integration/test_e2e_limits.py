"""Limits as the kernel holds them: the files of the container's cgroup, and what happens to who wants more.

The machine's cgroups may be v1 or v2; what is read here are v1's files, so the tests of files need that.
"""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_pb2, resources_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import system_service_pb2 as system_pb

from executor_service.oci.cgroup_features import probe_features
from executor_service.oci.cgroups import CgroupTree
from executor_service.storage.project_quotas import quota_obstacle
from tests.fixtures.api import refused
from tests.fixtures.cgroup_files import cgroup_file, needs_v1
from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024


def disk() -> tuple[str, str]:
    """A whole disk: its path, and its numbers as `254:0`."""
    for name in sorted(os.listdir("/sys/block")):  # noqa: PTH208
        path = Path("/dev") / name
        if path.exists() and stat.S_ISBLK(path.stat().st_mode) and not name.startswith(("loop", "zram", "ram")):
            number = path.stat().st_rdev
            return str(path), f"{os.major(number)}:{os.minor(number)}"
    pytest.skip("the machine has no disk")


def resources(**fields: object) -> resources_pb2.Resources:
    return resources_pb2.Resources(**fields)  # type: ignore[arg-type]


@needs_v1
@pytest.mark.parametrize("runtime", ["crun", "runc"])
async def test_every_limit_is_in_the_kernels_files(engine: Slipway, runtime: str) -> None:
    features = probe_features(CgroupTree.probe()).names
    path, number = disk()
    throttle = resources_pb2.ThrottleDevice(path=path, rate=4 * MIB)
    wanted = resources(
        memory=64 * MIB,
        memory_swap=96 * MIB,
        memory_reservation=32 * MIB,
        memory_swappiness=10,
        cpu_shares=512,
        nano_cpus=500_000_000,
        cpuset_cpus="0",
        cpuset_mems="0",
        pids_limit=50,
        blkio_weight=300,
        blkio_device_read_bps=[throttle],
        blkio_device_write_bps=[throttle],
        blkio_device_read_iops=[resources_pb2.ThrottleDevice(path=path, rate=100)],
        blkio_device_write_iops=[resources_pb2.ThrottleDevice(path=path, rate=200)],
    )
    container = await engine.run("sleep", "300", resources=wanted, oom_score_adj=321, runtime=runtime)

    found = {
        name: cgroup_file(engine, container, name)
        for name in (
            "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness",
            "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpuset.cpus", "cpuset.mems", "pids.max",
            "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
            "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device",
        )
    }  # fmt: skip
    assert found == {
        "memory.limit_in_bytes": str(64 * MIB),
        "memory.memsw.limit_in_bytes": str(96 * MIB),
        "memory.soft_limit_in_bytes": str(32 * MIB),
        "memory.swappiness": "10",
        "cpu.shares": "512",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "50",
        "blkio.throttle.read_bps_device": f"{number} {4 * MIB}",
        "blkio.throttle.write_bps_device": f"{number} {4 * MIB}",
        "blkio.throttle.read_iops_device": f"{number} 100",
        "blkio.throttle.write_iops_device": f"{number} 200",
    }
    if "blkio_weight" in features:
        assert cgroup_file(engine, container, "blkio.bfq.weight") == "300"
    state = (await engine.inspect(container)).state
    assert Path(f"/proc/{state.pid}/oom_score_adj").read_text().strip() == "321"
    await engine.remove(container)


async def test_memory_alone_gets_as_much_swap_and_the_record_says_so(engine: Slipway) -> None:
    container = await engine.create("true", resources=resources(memory=64 * MIB))
    assert (await engine.inspect(container)).host_config.resources.memory_swap == 128 * MIB
    await engine.remove(container)


async def test_who_wants_more_memory_is_killed_and_that_is_told(engine: Slipway) -> None:
    began = Timestamp()
    began.GetCurrentTime()
    container = await engine.run(
        *("sh", "-c", "tail /dev/zero"), name="hungry", resources=resources(memory=16 * MIB, memory_swap=16 * MIB)
    )
    ended = await engine.wait(container)

    assert ended.exit_code == 137
    assert (await engine.inspect(container)).state.oom_killed
    now = Timestamp()
    now.GetCurrentTime()
    stream = engine.system.StreamEvents(system_pb.StreamEventsRequest(since=began, until=now), timeout=60)
    told = [item.event.action async for item in stream if item.event.actor_id == container]
    assert told[-2:] == ["oom", "die"]
    await engine.remove(container)


async def test_a_fork_bomb_stays_in_its_bounds(engine: Slipway) -> None:
    script = "i=0; while [ $i -lt 60 ]; do sleep 300 & i=$((i+1)); done; echo all; wait"
    container = await engine.run("sh", "-c", script, resources=resources(pids_limit=20))
    await engine.wait(container)

    written = (await engine.logs(container, stderr=True)).decode()
    assert "can't fork" in written
    assert "all" not in written.split()
    await engine.remove(container)


@needs_v1
async def test_half_a_processor_is_not_more(engine: Slipway) -> None:
    container = await engine.run("sh", "-c", "while :; do :; done", resources=resources(nano_cpus=200_000_000))
    throttled = 0
    async with asyncio.timeout(60):
        while not throttled:
            lines = cgroup_file(engine, container, "cpu.stat").splitlines()
            throttled = int(dict(line.split() for line in lines)["nr_throttled"])
            await asyncio.sleep(0.05)
    await engine.remove(container)


@needs_v1
async def test_a_parent_is_made_shared_and_removed_with_the_last_container(engine: Slipway) -> None:
    parent = f"/slipway-{engine.instance}-tenant/blue"
    first = await engine.run("sleep", "300", cgroup_parent=parent, resources=resources(pids_limit=9))
    second = await engine.run("sleep", "300", cgroup_parent=parent)
    assert cgroup_file(engine, first, "pids.max", parent=parent) == "9"
    assert (await engine.inspect(second)).host_config.cgroup_parent == parent

    await engine.remove(first)
    assert Path(f"/sys/fs/cgroup/memory{parent}/{second}").is_dir()
    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()
    await engine.remove(second)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/slipway-{engine.instance}-tenant"))


@needs_v1
async def test_a_parent_that_was_there_before_stays(engine: Slipway) -> None:
    own = Path(f"/sys/fs/cgroup/pids/slipway-{engine.instance}-admin")
    own.mkdir()
    try:
        container = await engine.run("sleep", "300", cgroup_parent=f"/{own.name}")
        assert (own / container).is_dir()
        await engine.remove(container)
        assert own.is_dir()
        assert not (own / container).exists()
        assert not Path(f"/sys/fs/cgroup/memory/{own.name}").exists()
    finally:
        own.rmdir()


async def test_a_device_that_is_not_there_is_named(engine: Slipway) -> None:
    throttle = resources_pb2.ThrottleDevice(path="/dev/no-such-disk", rate=1)
    container = await engine.create("true", resources=resources(blkio_device_read_bps=[throttle]))
    refusal = await refused(engine.containers.StartContainer(pb.StartContainerRequest(container=container)))
    assert "resources.blkio_device_read_bps[0].path: '/dev/no-such-disk' is not on this node" in refusal.message
    await engine.remove(container)


async def test_refused_limits_are_all_named_at_once(engine: Slipway) -> None:
    host = container_pb2.HostConfig(
        resources=resources(memory=4 * MIB, cpuset_cpus="0-999"), cgroup_parent="/a/../b", oom_score_adj=1001
    )
    request = pb.CreateContainerRequest(
        config=container_pb2.ContainerConfig(image="busybox", cmd=["true"]), host_config=host
    )
    refusal = await refused(engine.containers.CreateContainer(request))
    assert sorted(refusal.violations) == [
        "host_config.cgroup_parent",
        "host_config.oom_score_adj",
        "host_config.resources.cpuset_cpus",
        "host_config.resources.memory",
    ]


async def test_a_size_the_node_cannot_hold_a_root_to_is_refused_with_the_reason(engine: Slipway) -> None:
    refusal = await refused(engine.create("true", storage_opt={"size": "10g"}))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    why = refusal.violations['host_config.storage_opt["size"]']
    assert why.startswith("the root filesystem cannot be held to a size: ")
    assert quota_obstacle(Path(f"/var/lib/slipway-{engine.instance}/storage")) in why
