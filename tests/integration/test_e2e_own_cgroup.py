"""An executor that is a container's process itself: whoever ends that container kills all that is in its cgroup."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from executor_service.oci.cgroups import CgroupTree
from executor_service.own_cgroup import remove_own_cgroup
from tests.fixtures.instance_names import new_instance
from tests.fixtures.slipway import Slipway, installed

CGROUPS = CgroupTree.probe()
# Where a runtime looks for what it kills: with v1 in the hierarchy of devices, with v2 in the only one.
HIERARCHY = CGROUPS.root("devices") or CGROUPS.hierarchies[0]


@pytest.fixture
def container() -> Iterator[Path]:
    """The cgroup of the container that the executor is in."""
    cgroup = HIERARCHY / f"container-{new_instance()}"
    cgroup.mkdir()
    yield cgroup
    until = time.monotonic() + 60
    while True:
        try:
            cgroup.rmdir()
        except OSError as error:  # a program of the executor's that is about to end
            assert error.errno == errno.EBUSY
            assert time.monotonic() < until, (cgroup / "cgroup.procs").read_text()
            time.sleep(0.02)
        else:
            return


@contextmanager
def born_in(cgroup: Path) -> Iterator[None]:
    """What is started meanwhile."""
    own = next(
        path
        for controllers, path in (line.split(":")[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
        if "devices" in controllers.split(",") or (CGROUPS.is_v2 and not controllers)
    )
    (cgroup / "cgroup.procs").write_text("0")
    try:
        yield
    finally:
        (HIERARCHY / own.lstrip("/") / "cgroup.procs").write_text("0")


async def end_container(engine: Slipway, cgroup: Path) -> None:
    """As runc does it where the container has the host's processes: its first one, then every one in its cgroup."""
    await engine.executor.kill()
    for pid in (cgroup / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)


async def test_containers_outlive_the_container_of_the_executor(tmp_path: Path, container: Path) -> None:
    name = new_instance()
    own = f"/own-{name}"
    async with installed(tmp_path, instance=name, executor=["--own-cgroup", own]) as engine:
        await engine.executor.stop()
        with born_in(container):
            await engine.executor.start()
        await engine.node_back()
        running = await engine.run("sleep", "1000", name="web")
        before = (await engine.inspect(running)).state
        await end_container(engine, container)
        with born_in(container):
            await engine.executor.start()
        await engine.node_back()
        after = (await engine.inspect(running)).state
        assert after.running
        assert (after.pid, after.started_at) == (before.pid, before.started_at)
        monitor = int(Path(f"/run/slipway-{name}/bundles/{running}/conmon.pid").read_text())
        assert f":{own}\n" in Path(f"/proc/{monitor}/cgroup").read_text()
        await engine.remove(running, force=True)
    remove_own_cgroup(own)
    assert not (HIERARCHY / own.lstrip("/")).exists()
