"""An init as a container's first process, under crun and runc: when it hears signals, and that none is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_service.oci import init
from tests.fixtures.oci import DEADLINE, UNAVAILABLE, Containers, containers_in, make_rootfs

pytestmark = pytest.mark.skipif(bool(UNAVAILABLE), reason=UNAVAILABLE)


@pytest.fixture(params=["crun", "runc"])
def containers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Containers]:
    with containers_in(tmp_path, make_rootfs(tmp_path / "rootfs"), request.param) as made:
        yield made


async def test_a_signal_that_comes_before_the_init_is_not_lost(containers: Containers) -> None:
    """A namespace's first process never gets what it has no handler for, and has none before it is the init."""
    if containers.runtime_name != "crun":
        pytest.skip("runc waits for a process that stands still")
    container = containers.make("sleep", "1000", init=True)
    created = await containers.runtime.create(container.bundle)
    os.kill(created.container.pid, signal.SIGSTOP)
    await containers.runtime.start(container.id, runtime=containers.runtime_name)
    killing = asyncio.create_task(containers.runtime.kill(container.id, created.container, signal.SIGTERM, init=True))
    await asyncio.wait([killing], timeout=0.1)
    os.kill(created.container.pid, signal.SIGCONT)
    await killing
    assert (await containers.ended(container, created)).code == 143
    await containers.delete(container)


async def test_one_that_waits_for_signals_gets_them_at_once(
    containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is known as an init, and not waited for as one that has yet to begin."""
    monkeypatch.setattr(init, "_PATIENCE", 2 * DEADLINE)
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    container = containers.make("sh", "-c", script, init=True)
    created = await containers.start(container)
    async with asyncio.timeout(DEADLINE):
        while not container.log:
            await asyncio.sleep(0.005)
        await containers.runtime.kill(container.id, created.container, signal.SIGTERM, init=True)
    assert (await containers.ended(container, created)).code == 3
    await containers.delete(container)
