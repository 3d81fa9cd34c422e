"""Two executors, one API: a node is killed, frozen, and left alone for longer than its lease.

The container that is watched writes when it runs, on a clock that both nodes share here because they are one machine:
two runs of it must never overlap.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from slipway.v1 import node_service_pb2 as node_pb

from tests.fixtures.beats import BEATING, Beats
from tests.fixtures.nodes_up import Nodes, nodes_up

READY, LOST = node_pb.NODE_STATE_READY, node_pb.NODE_STATE_LOST
ACTIVE, CORDONED, DRAINED = (
    node_pb.NODE_AVAILABILITY_ACTIVE,
    node_pb.NODE_AVAILABILITY_CORDONED,
    node_pb.NODE_AVAILABILITY_DRAINED,
)
LEASE = 6  # seconds, of which a busy machine may take two thirds; a third of it and 5 s later the loss is known


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    async with nodes_up(tmp_path, ["a", "b"], api=["--node-lease", str(LEASE)]) as nodes:
        yield nodes


@pytest.fixture
async def beats(tmp_path: Path) -> Beats:
    return Beats(tmp_path / "beats")


async def begin(nodes: Nodes, beats: Beats) -> tuple[str, str]:
    """The marked container and another one, both on node a."""
    await nodes.available("b", CORDONED)
    binds = [f"{beats.directory}:/beats"]
    web = await nodes.client.run("sh", "-c", BEATING, name="web", binds=binds, reschedule="on_node_loss")
    stays = await nodes.client.run("sleep", "1000", name="stays")
    await nodes.available("b", ACTIVE)
    await beats.until_runs(1)
    return web, stays


async def test_a_killed_executor(nodes: Nodes, beats: Beats) -> None:
    web, stays = await begin(nodes, beats)
    pid = (await nodes.client.inspect(stays)).state.pid
    await nodes.executors["a"].kill()
    await nodes.until("a", LOST)
    assert len(beats.runs()) == 1
    await nodes.runs_on(web, "b")
    await beats.until_runs(2)
    assert beats.never_twice()
    assert Path(f"/proc/{pid}").exists()  # the others go on where they are
    await nodes.executors["a"].start()
    await nodes.until("a", READY)
    assert (await nodes.client.inspect(stays)).state.pid == pid
    assert (await nodes.client.inspect(web)).node == "b"
    assert not list(Path("/run").glob(f"{_run(nodes, 'a')}/bundles/{web}"))
    await nodes.client.remove(web)
    await nodes.client.remove(stays)


async def test_a_frozen_executor(nodes: Nodes, beats: Beats) -> None:
    web, stays = await begin(nodes, beats)
    frozen = nodes.executors["a"].pid
    os.kill(frozen, signal.SIGSTOP)
    try:
        await nodes.until("a", LOST)
        await nodes.runs_on(web, "b")
        await beats.until_runs(2)
        await asyncio.sleep(1)
    finally:
        os.kill(frozen, signal.SIGCONT)
    await nodes.until("a", READY)
    await asyncio.sleep(2 * LEASE)  # long enough for whatever was on its way to the frozen one
    assert len(beats.runs()) == 2
    assert beats.never_twice()
    assert (await nodes.client.inspect(web)).node == "b"
    await nodes.client.remove(web)
    await nodes.client.remove(stays)


async def test_an_api_that_is_away_for_longer_than_the_lease(nodes: Nodes, beats: Beats) -> None:
    web, stays = await begin(nodes, beats)
    pid = (await nodes.client.inspect(stays)).state.pid
    await nodes.client.api.kill()
    async with asyncio.timeout(60):
        while beats.silence() < 1:
            await asyncio.sleep(0.05)
    await nodes.client.api.start()
    await beats.until_runs(2)
    await nodes.runs_on(web, "a")
    assert beats.never_twice()
    assert (await nodes.client.inspect(stays)).state.pid == pid
    await nodes.client.remove(web)
    await nodes.client.remove(stays)


async def test_a_drained_node(nodes: Nodes, beats: Beats) -> None:
    web, stays = await begin(nodes, beats)
    await nodes.available("a", DRAINED)
    await nodes.runs_on(web, "b")
    await beats.until_runs(2)
    assert beats.never_twice()
    assert (await nodes.client.inspect(stays)).node == "a"
    await nodes.client.remove(web)
    await nodes.client.remove(stays)


def _run(nodes: Nodes, name: str) -> str:
    return Path(nodes.executors[name].address.removeprefix("unix://")).parent.name
