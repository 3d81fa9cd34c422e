"""When a container begins and ceases to be called something."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest

from common.errors import Internal, StartFailed
from executor_service.container import EndpointSpec, NetworkMode
from executor_service.executor import Executor
from executor_service.network.network import NetworkSpec
from executor_service.operations.container_create import container_create
from executor_service.operations.container_signal import container_signal
from executor_service.operations.container_start import container_start
from executor_service.operations.network_connect import network_connect, network_disconnect
from tests.fixtures.fake_host.bundles import FakeBundles
from tests.fixtures.fake_host.host import FakeHost
from tests.fixtures.fake_host.runtime import FakeRuntime
from tests.fixtures.fake_host.specs import container_id, container_spec

BOX = container_id(1)
NETWORK = "a" * 64


async def run(executor: Executor) -> None:
    await executor.node.seams.networks.create(NetworkSpec(id=NETWORK, name="app"))
    web = replace(container_spec(1), network_mode=NetworkMode.BRIDGE, endpoints=(named("web"),))
    await container_create(executor.node, web)
    await container_start(executor.node, container_id=BOX, start_id="s1")


def named(name: str, network_id: str = NETWORK) -> EndpointSpec:
    return EndpointSpec(network_id=network_id, dns_names=(name,))


def names_of(host: FakeHost) -> list[tuple[str, ...]]:
    spec, _ = host.names.followed[BOX]
    return [endpoint.dns_names for endpoint in spec.endpoints]


async def test_from_its_start_to_its_end(host: FakeHost) -> None:
    async with host.executor() as executor:
        await run(executor)
        _, sandbox = host.names.followed[BOX]
        assert (names_of(host), sandbox) == ([("web",)], host.network.sandboxes[BOX])
        await container_signal(executor.node, container_id=BOX, signal=signal.SIGKILL)
        watch = executor.node.supervisor.watched(BOX)
        if watch is not None:
            async with asyncio.timeout(60):
                await asyncio.shield(watch.ended)
        async with executor.node.locks.hold(BOX):
            assert host.names.followed == {}


async def test_renamed_connected_and_disconnected_while_it_runs(host: FakeHost) -> None:
    async with host.executor() as executor:
        await run(executor)
        assert await network_connect(executor.node, container_id=BOX, endpoint=named("renamed")) is not None
        assert names_of(host) == [("renamed",)]
        await network_connect(executor.node, container_id=BOX, endpoint=named("there", "bridge"))
        assert names_of(host) == [("renamed",), ("there",)]
        await network_disconnect(executor.node, container_id=BOX, network_id=NETWORK)
        assert names_of(host) == [("there",)]


async def test_a_new_executor_is_told_of_what_runs(host: FakeHost) -> None:
    async with host.executor() as executor:
        await run(executor)
    host.names.followed.clear()
    async with host.executor():
        assert names_of(host) == [("web",)]


async def test_name_files_that_cannot_be_restored_keep_no_executor_from_its_work(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise Internal("remapped users on a node that remaps none")

    async with host.executor() as executor:
        await run(executor)
    monkeypatch.setattr(FakeBundles, "restore_names", fail)
    async with host.executor() as executor:
        assert executor.node.supervisor.running() == [BOX]


async def test_a_start_that_fails_leaves_no_name(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: FakeRuntime, container_id: str, *, runtime: str = "") -> None:
        assert names_of(host) == [("web",)]
        raise StartFailed("its program is not there", exit_code=127)

    monkeypatch.setattr(FakeRuntime, "start", fail)
    async with host.executor() as executor:
        await run(executor)
        assert host.names.followed == {}
