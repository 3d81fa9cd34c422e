"""Random verbs against the model of the state machine, on the real kernel: what the records say is what the kernel has,
after each step, and after each walk nothing is left."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import container_service_pb2_grpc as container_rpc
from slipway.v1 import exec_service_pb2_grpc as exec_rpc

from executor_service.config import instance_defaults
from tests.fixtures.netns import command
from tests.fixtures.slipway import Slipway, installed
from tests.fixtures.state_walk import (
    ALIVE,
    ENDS,
    EXECUTOR_LOST,
    FAILS_TO_START_AGAIN,
    FROZEN,
    IS_STARTED_AGAIN,
    Model,
    examples,
    steps,
    walk,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3600)]

EXAMPLES = 6
CGROUPS = Path("/sys/fs/cgroup")
SOON = 60.0  # seconds within which what is done behind an answer is done
# A restart that waits comes a minute later: nobody waits for that here.
NOT_HERE = (IS_STARTED_AGAIN, FAILS_TO_START_AGAIN)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealWorld]:
    ends = tmp_path_factory.mktemp("control") / "ends"
    os.mkfifo(ends)
    async with installed(tmp_path_factory.mktemp("services")) as engine:
        world = RealWorld(engine, ends)
        await _eventually(lambda: len(world.sandboxes()) == world.pool, "the pool is filled")
        world.at_rest = world.network()
        yield world


@settings(
    max_examples=examples(EXAMPLES),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps(without=[*NOT_HERE, EXECUTOR_LOST], at_most=25))
async def test_walk(world: RealWorld, way: list[str]) -> None:
    await walk(world, way)
    await world.nothing_left()


@settings(
    max_examples=examples(1),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps(without=NOT_HERE, at_most=12), st.integers(0, 12))
async def test_walk_over_the_executors_death(world: RealWorld, way: list[str], at: int) -> None:
    await walk(world, [*way[:at], EXECUTOR_LOST, *way[at:]])
    await world.nothing_left()


@dataclass(slots=True)
class RealWorld:
    """`ends`: a fifo in which the container's process reads the code that it is to end with."""

    engine: Slipway
    ends: Path
    pool: int = 8  # sandboxes that stand ready, four of each kind
    at_rest: tuple[int, int] = (0, 0)

    @property
    def containers(self) -> container_rpc.ContainerServiceStub:
        return self.engine.containers

    @property
    def execs(self) -> exec_rpc.ExecServiceStub:
        return self.engine.execs

    def program(self) -> pb.CreateContainerRequest:
        return pb.CreateContainerRequest(
            config=container_pb2.ContainerConfig(image="busybox", cmd=["sh", "-c", "read code < /ends; exit $code"]),
            host_config=container_pb2.HostConfig(binds=[f"{self.ends}:/ends:ro"]),
        )

    async def by_itself(self, container_id: str, step: str, after: str) -> None:
        if step == EXECUTOR_LOST:
            await self.engine.executor.kill()
            await self.engine.executor.start()
            await self.engine.node_back()
            return
        before = (await self.engine.inspect(container_id)).state
        await asyncio.wait_for(asyncio.to_thread(self.ends.write_text, f"{ENDS[step]}\n"), SOON)
        status = container_pb2.ContainerStatus.Value(f"CONTAINER_STATUS_{after.upper()}")
        async with asyncio.timeout(SOON):
            while (now := (await self.engine.inspect(container_id)).state).status != status or now.pid == before.pid:
                await asyncio.sleep(0.01)

    async def agrees(self, container: container_pb2.Container, model: Model) -> None:
        if model.state not in ALIVE:
            await _eventually(lambda: not _cgroups(container.id), "no cgroup without a process")
            assert not _processes(container.id)
            assert not container.network_settings.sandbox_key
            return
        pid = container.state.pid
        assert container.id in Path(f"/proc/{pid}/cgroup").read_text()
        assert _of("freezer", pid, "freezer.state") == ("FROZEN" if model.state == FROZEN else "THAWED")
        assert _of("memory", pid, "memory.limit_in_bytes") == str(model.memory)
        settings = container.network_settings
        # Namespaces are pinned where the executor sees them.
        pinned = Path(f"/proc/{self.engine.executor.pid}/root{settings.sandbox_key}")
        assert pinned.stat().st_ino == Path(f"/proc/{pid}/ns/net").stat().st_ino
        addresses = command("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-o", "address")
        assert f"inet {settings.networks['bridge'].ip_address}/" in addresses

    async def nothing_left(self) -> None:
        assert not (await self.containers.ListContainers(pb.ListContainersRequest(all=True), timeout=60)).containers
        await _eventually(lambda: self.network() == self.at_rest, f"the network at rest, {self.at_rest}")
        await _eventually(lambda: self.left() == [], "nothing left")

    def network(self) -> tuple[int, int]:
        """How many network sandboxes there are, and how many addresses are given."""
        database = Path(str(instance_defaults(self.engine.instance)["root_dir"])) / "state.db"
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            (leases,) = connection.execute("SELECT count(*) FROM network_leases").fetchone()
        return len(self.sandboxes()), leases

    def sandboxes(self) -> list[str]:
        return [path.name for path in Path(f"/run/slipway-{self.engine.instance}/netns").iterdir()]

    def left(self) -> list[str]:
        """Of any container of the instance: directories, cgroups, mounts, processes."""
        name = f"slipway-{self.engine.instance}"
        below = [Path(f"/var/lib/{name}/containers"), *(Path(f"/run/{name}") / each for each in ("bundles", "mounts"))]
        found = [str(path) for directory in below if directory.is_dir() for path in directory.iterdir()]
        found += [str(path) for parent in CGROUPS.glob(f"*/{name}") for path in parent.iterdir() if path.is_dir()]
        mounts = Path(f"/proc/{self.engine.executor.pid}/mountinfo").read_text().splitlines()
        found += [line for line in mounts if f"/{name}/" in line and any(part in line for part in _OF_A_CONTAINER)]
        return found + _processes(f"/{name}/")


_OF_A_CONTAINER = ("/bundles/", "/mounts/", "/containers/", " overlay ")


def _of(controller: str, pid: int, file: str) -> str:
    """What a file of the process's cgroup says."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return (CGROUPS / controller / path.lstrip("/") / file).read_text().strip()
    raise AssertionError(f"process {pid} is in no {controller} cgroup")


def _cgroups(container_id: str) -> list[Path]:
    # A walk, unlike a glob, does not mind that others remove theirs meanwhile.
    return [Path(top) / name for top, below, _ in os.walk(CGROUPS) for name in below if container_id in name]


def _processes(text: str) -> list[str]:
    """Processes in a cgroup with that in its path."""
    found = []
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit():
            try:
                if text in (directory / "cgroup").read_text():
                    found.append(f"process {directory.name}")
            except OSError:
                continue  # it ended meanwhile
    return found


async def _eventually(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(SOON):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise AssertionError(f"not within {SOON} s: {what}") from error
