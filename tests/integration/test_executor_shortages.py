"""The executor on a host that runs short of something: the cause is told, nothing is lost, and then all is well."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from slipway.executor.v1 import runtime_service_pb2 as pb

from tests.fixtures.executor import ExecutorProcess, executor_process

pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextmanager
def _no_more_descriptors(pid: int) -> Iterator[None]:
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names suffice
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_without_descriptors_nothing_is_lost(executor: ExecutorProcess) -> None:
    running, box = await executor.create(), await executor.create()
    pid = (await executor.run(running)).started.pid
    with _no_more_descriptors(executor.pid):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await executor.run(box)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, refused.value.details()
        assert Path(f"/proc/{pid}").exists()
        os.kill(pid, signal.SIGKILL)
    assert (await executor.exited(running)).exited.exit_code == 137
    assert (await executor.run(box)).HasField("started")
    await executor.remove(box)
    assert await executor.traceless() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "slipway-test", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


async def test_a_full_disk_is_told_and_containers_go_on(small_disk: Path) -> None:
    async with executor_process("--disk-reserve", str(1 << 20), root=small_disk / "root") as executor:
        running, box = await executor.create(), await executor.create()
        pid = (await executor.run(running)).started.pid
        filler = small_disk / "filler"
        with filler.open("wb") as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        for call in (executor.run(box), executor.create()):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, refused.value.details()
        snapshot = await executor.snapshot(running)
        assert snapshot is not None
        assert snapshot.phase == pb.CONTAINER_PHASE_RUNNING
        await executor.signal(running, signal.SIGKILL)
        filler.unlink()
        assert (await executor.exited(running)).exited.exit_code == 137
        assert not Path(f"/proc/{pid}").exists()
        assert (await executor.run(box)).HasField("started")
        await executor.remove(box)
        await executor.remove(running)
        assert await executor.traceless() == []
