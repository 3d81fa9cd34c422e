"""What must not come of mounts: an exchanged link that leads out, something left behind by a crash, a half-filled
volume."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.executor.v1 import container_spec_pb2 as spec_pb
from slipway.executor.v1 import runtime_service_pb2 as pb
from slipway.executor.v1 import volume_store_service_pb2 as volume_pb
from slipway.executor.v1 import volume_store_service_pb2_grpc as volume_rpc

from tests.fixtures.executor import ExecutorProcess, executor_process

pytestmark = pytest.mark.asyncio(loop_scope="module")

Mount = spec_pb.Mount
ROUNDS = 12

# Exchanges, as fast as it can, a directory and a link to what must not be reached (renameat2(2), RENAME_EXCHANGE).
EXCHANGE = """
import ctypes, sys
libc = ctypes.CDLL(None)
one, other = (path.encode() for path in sys.argv[1:])
print("going", flush=True)
while True:
    libc.renameat2(-100, one, -100, other, 2)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor() -> AsyncIterator[ExecutorProcess]:
    async with executor_process(faulty=True) as executor:
        yield executor


def volumes(executor: ExecutorProcess) -> volume_rpc.VolumeStoreServiceStub:
    assert executor.channel is not None
    return volume_rpc.VolumeStoreServiceStub(executor.channel)


async def new_volume(executor: ExecutorProcess) -> tuple[str, Path]:
    request = volume_pb.CreateVolumeRequest(name=f"v-{secrets.token_hex(4)}")
    made = (await volumes(executor).CreateVolume(request, timeout=60)).volume
    return made.name, Path(made.mountpoint)


async def test_a_link_exchanged_while_starting_leads_nowhere_else(executor: ExecutorProcess, tmp_path: Path) -> None:
    """CVE-2021-30465: the part of a volume that is mounted belongs to whoever writes the volume."""
    name, data = await new_volume(executor)
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "treasure").touch()
    (data / "sub").mkdir()
    (data / "sub" / "mine").touch()
    (data / "swap").symlink_to(secret)
    (tmp_path / "bind").mkdir()
    (tmp_path / "bind" / "mine").touch()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", EXCHANGE, str(data / "sub"), str(data / "swap")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"going\n"
    outcomes = []
    try:
        for _ in range(ROUNDS):
            spec = executor.spec("sh", "-c", "ls /part /inner")
            spec.mounts.extend(
                [
                    Mount(type=spec_pb.MOUNT_TYPE_VOLUME, source=name, target="/whole"),
                    Mount(type=spec_pb.MOUNT_TYPE_VOLUME, source=name, target="/part", subpath="sub"),
                    Mount(type=spec_pb.MOUNT_TYPE_TMPFS, target="/whole/sub/inner"),
                    Mount(type=spec_pb.MOUNT_TYPE_BIND, source=str(tmp_path / "bind"), target="/inner"),
                ]
            )
            container = await executor.create(spec=spec)
            entry = await executor.run(container)
            if entry.HasField("started"):
                await executor.exited(container)
                outcomes.append((await executor.output(container)).decode())
            else:
                outcomes.append(entry.start_failed.message)
            await executor.remove(container)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()

    assert not any("treasure" in outcome for outcome in outcomes)
    assert sorted(path.name for path in secret.iterdir()) == ["treasure"]  # and nothing was made there
    assert await executor.traceless() == []


async def test_nothing_of_a_start_that_was_killed_is_left(executor: ExecutorProcess, tmp_path: Path) -> None:
    """A crash with mounts staged: a container that runs keeps its mounts, the staged ones are gone."""
    name, data = await new_volume(executor)
    spec = executor.spec("sh", "-c", "until [ -e /v/go ]; do sleep 0.05; done; echo done > /v/end; sleep 300")
    spec.mounts.append(Mount(type=spec_pb.MOUNT_TYPE_VOLUME, source=name, target="/v"))
    running = await executor.create(spec=spec)
    await executor.run(running)
    starting = executor.spec("true")
    starting.mounts.append(Mount(type=spec_pb.MOUNT_TYPE_BIND, source=str(tmp_path), target="/b"))
    await executor.create(spec=starting)

    staged = executor.paths.mounts / starting.id
    assert executor.faults is not None
    executor.faults.arm("create:before", "kill")
    with pytest.raises(grpc.aio.AioRpcError):
        await executor.run(starting.id)
    await executor.ended()
    assert staged.exists()

    await executor.start()
    (data / "go").touch()
    async with asyncio.timeout(60):
        while not (data / "end").exists():
            await asyncio.sleep(0.02)
    assert not staged.exists()
    assert [point for point in executor.traces.mount_points() if point.is_relative_to(executor.paths.mounts)] == []
    assert tmp_path.exists()
    with pytest.raises(Exception, match="used by container"):
        await volumes(executor).RemoveVolume(volume_pb.RemoveVolumeRequest(name=name), timeout=60)
    for container in (running, starting.id):
        await executor.remove(container)
    size = (await volumes(executor).RemoveVolume(volume_pb.RemoveVolumeRequest(name=name), timeout=60)).size
    assert size >= 4096
    assert not data.exists()
    assert await executor.traceless() == []


async def test_a_fill_that_was_cut_off_goes_on(executor: ExecutorProcess) -> None:
    """Copied whole, and some of it in its place: the next executor ends it. Copied in part: it begins anew."""
    name, data = await new_volume(executor)
    other, empty = await new_volume(executor)
    await executor.kill()
    fill = data.with_name("fill")
    fill.mkdir(mode=0o751)
    os.chown(fill, 33, 33)
    (fill / "late").write_text("image")
    (fill / "newer").write_text("image")
    (data / "newer").write_text("container")
    (empty.with_name("fill.tmp") / "half").mkdir(parents=True)
    await executor.start()

    assert (data / "late").read_text() == "image"
    assert (data / "newer").read_text() == "container"
    assert (data.stat().st_uid, data.stat().st_mode & 0o7777) == (33, 0o751)
    assert [path.name for path in data.parent.iterdir() if path.name.startswith("fill")] == []
    spec = executor.spec("true")
    spec.mounts.append(Mount(type=spec_pb.MOUNT_TYPE_VOLUME, source=other, target="/home", populate=True))
    await executor.create(spec=spec)
    assert empty.stat().st_uid == 65534
    await executor.remove(spec.id)
    for each in (name, other):
        await volumes(executor).RemoveVolume(volume_pb.RemoveVolumeRequest(name=each), timeout=60)


async def test_a_link_of_the_image_does_not_lead_into_proc(executor: ExecutorProcess) -> None:
    """What is mounted over /proc would decide what the runtime hides and protects."""
    spec = executor.spec("true")
    link = Mount(type=spec_pb.MOUNT_TYPE_TMPFS, target="/etc/mtab/x")
    spec.mounts.append(link)
    container = await executor.create(spec=spec)
    entry = await executor.run(container)
    assert "a link of the image" in entry.start_failed.message
    await executor.remove(container)
    direct = executor.spec("true")
    direct.mounts.append(Mount(type=spec_pb.MOUNT_TYPE_TMPFS, target="/proc/sys"))
    with pytest.raises(Exception, match="must not be in /proc"):
        await executor.create(spec=direct)


async def test_a_start_without_mounts_does_not_pay_for_them(executor: ExecutorProcess) -> None:
    container = await executor.create("true")
    await executor.run(container)
    await executor.exited(container)
    (timings,) = [each for each in executor.events("start timings") if each["container"] == container]
    steps = timings["steps"]
    assert isinstance(steps, dict)
    assert "mounts" not in steps
    assert not (executor.paths.mounts / container).exists()
    await executor.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=container), timeout=60)
