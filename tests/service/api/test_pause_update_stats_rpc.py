"""Pause, update, statistics and processes, as clients see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from slipway.v1 import container_pb2, resources_pb2
from slipway.v1 import container_service_pb2 as pb2

from common.errors import FailedPrecondition
from tests.fixtures.api import Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor

MIB = 1024 * 1024
NOT_POSSIBLE = grpc.StatusCode.FAILED_PRECONDITION


async def pause(api: Api, container: str) -> None:
    await api.containers.PauseContainer(pb2.PauseContainerRequest(container=container))


async def unpause(api: Api, container: str) -> None:
    await api.containers.UnpauseContainer(pb2.UnpauseContainerRequest(container=container))


def update(container: str, policy: str = "", **fields: Any) -> pb2.UpdateContainerRequest:
    request = pb2.UpdateContainerRequest(container=container, resources=resources_pb2.Resources(**fields))
    if policy:
        request.restart_policy.name = policy
    return request


async def test_pause_and_unpause(api: Api) -> None:
    container = await api.run(name="web")
    await pause(api, "web")
    state = (await api.inspect("web")).state
    assert (state.paused, state.running, state.status) == (True, True, container_pb2.CONTAINER_STATUS_PAUSED)
    await unpause(api, "web")
    assert (await api.inspect("web")).state.status == container_pb2.CONTAINER_STATUS_RUNNING
    assert (await api.actions())[-2:] == ["container pause", "container unpause"]
    await pause(api, "web")
    api.executor.exit(container, 3)
    assert (await api.wait("web")).exit_code == 3
    assert not (await api.inspect("web")).state.paused


@pytest.mark.parametrize(
    ("prepare", "call", "sentence"),
    [
        ("created", pause, "is not running"),
        ("created", unpause, "is not running"),
        ("running", unpause, "is not paused"),
        ("paused", pause, "is already paused"),
        ("restarting", pause, "is restarting, wait until the container is running"),
        ("restarting", unpause, "is not paused"),
    ],
)
async def test_states_that_forbid_it(api: Api, prepare: str, call: Any, sentence: str) -> None:
    container = await api.create(name="web")
    if prepare != "created":
        await api.start("web")
    if prepare == "paused":
        await pause(api, "web")
    if prepare == "restarting":
        api.executor.exit(container, 1, restart_in=60)
        await api.followed()
    refusal = await refused(call(api, "web"))
    assert refusal.code is NOT_POSSIBLE
    assert sentence in refusal.message


async def test_what_is_not_given_stays(api: Api) -> None:
    limits = resources_pb2.Resources(memory=64 * MIB, cpu_shares=100)
    container = await api.run(name="web", resources=limits)
    await api.containers.UpdateContainer(update("web", policy="always", nano_cpus=500_000_000, memory_swap=-1))

    host = (await api.inspect("web")).host_config
    kept = host.resources
    assert (kept.memory, kept.memory_swap, kept.cpu_shares, kept.nano_cpus) == (64 * MIB, -1, 100, 500_000_000)
    assert host.restart_policy.name == "always"
    told = api.executor.containers[container].updates[-1]
    assert (told.resources.memory, told.resources.cpu_shares) == (64 * MIB, 100)
    assert (told.resources.cpu_period, told.resources.cpu_quota) == (100_000, 50_000)
    assert told.restart_policy.max_delay.seconds == 60
    assert (await api.actions())[-1] == "container update"


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({"nano_cpus": 10**9}, "resources.nano_cpus", "conflicts with cpu_quota, 5000, which the container has"),
        ({"memory": 200 * MIB}, "resources.memory", "give memory_swap too"),
        ({"cpu_period": 1}, "resources.cpu_period", "is out of range"),
        ({"policy": "always"}, "restart_policy.name", "auto_remove"),
    ],
)
async def test_rules_of_an_update(api: Api, fields: dict[str, Any], field: str, sentence: str) -> None:
    limits = resources_pb2.Resources(memory=64 * MIB, cpu_quota=5000)
    await api.create(name="web", resources=limits, auto_remove=True)
    refusal = await refused(api.containers.UpdateContainer(update("web", **fields)))
    assert list(refusal.violations) == [field]
    assert sentence in refusal.violations[field]
    assert "UpdateContainer" not in api.executor.calls


async def test_what_the_node_refuses_is_not_in_the_record(api: Api) -> None:
    await api.run(name="web")
    api.executor.fault("UpdateContainer", error=FailedPrecondition("it uses more", reason="LIMIT_REFUSED"))
    refusal = await refused(api.containers.UpdateContainer(update("web", memory=64 * MIB)))
    assert (refusal.code, refusal.reason) == (NOT_POSSIBLE, "LIMIT_REFUSED")
    assert (await api.inspect("web")).host_config.resources.memory == 0
    assert "container update" not in await api.actions()
    assert api.executor.calls.count("UpdateContainer") == 1


async def test_an_update_whose_answer_is_lost_is_taken_back(api: Api) -> None:
    container = await api.run(name="web")
    api.executor.fault("UpdateContainer", lost=True)
    refusal = await refused(api.containers.UpdateContainer(update("web", memory=64 * MIB)))
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    updates = api.executor.containers[container].updates
    await api.executor.until(lambda: len(updates) == 2)
    assert [each.resources.memory for each in updates] == [64 * MIB, 0]
    assert (await api.inspect("web")).host_config.resources.memory == 0


async def test_a_service_that_dies_in_between_takes_it_back_when_it_is_there_again(
    tmp_path: Path, executor: FakeExecutor
) -> None:
    async with running_api(tmp_path, executor) as api:
        await api.load()
        container = await api.run(name="web")
        executor.fault("UpdateContainer", lost=True)
        executor.fault("UpdateContainer", error=FailedPrecondition("not now"))
        await refused(api.containers.UpdateContainer(update("web", memory=64 * MIB)))
        await executor.until(lambda: executor.calls.count("UpdateContainer") == 2)
    async with running_api(tmp_path, executor) as api:
        updates = executor.containers[container].updates
        await executor.until(lambda: len(updates) == 2)
        assert updates[-1].resources.memory == 0


async def test_what_the_node_cannot_do_is_warned_of(tmp_path: Path, executor: FakeExecutor) -> None:
    executor.cgroup_features.remove("pids")
    async with running_api(tmp_path, executor) as api:
        await api.load()
        request = pb2.CreateContainerRequest(
            config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]),
            host_config=container_pb2.HostConfig(resources=resources_pb2.Resources(pids_limit=5)),
        )
        created = await api.containers.CreateContainer(request)
        warning = "The node's kernel cannot limit the number of processes: host_config.resources.pids_limit is dropped."
        assert list(created.warnings) == [warning]
        assert not (await api.inspect(created.id)).host_config.resources.HasField("pids_limit")
        answer = await api.containers.UpdateContainer(update(created.id, pids_limit=7))
        assert list(answer.warnings) == [warning.replace("host_config.", "")]


async def test_statistics_of_all_that_run(api: Api) -> None:
    first = await api.run(name="first")
    await api.create(name="created")
    call = api.containers.StreamStats(pb2.StreamStatsRequest(), timeout=60)
    samples: list[pb2.ContainerStats] = []
    async for answer in call:
        samples += answer.containers
        if len(samples) == 2:
            call.cancel()
            break
    assert [(sample.id, sample.name) for sample in samples] == [(first, "first")] * 2
    assert samples[0].cpu_percent == 0
    assert samples[1].cpu_percent == pytest.approx(50, abs=5)
    assert (samples[0].online_cpus, samples[0].memory_limit) == (2, 1 << 32)


async def test_statistics_measured_together_are_told_together(api: Api) -> None:
    ids = [await api.run() for _ in range(3)]
    answer = await anext(aiter(api.containers.StreamStats(pb2.StreamStatsRequest(), timeout=60)))
    assert [sample.id for sample in answer.containers] == sorted(ids)


async def test_statistics_once(api: Api) -> None:
    await api.run(name="web")
    await api.create(name="idle")
    once = pb2.StreamStatsRequest(containers=["web"], once=True)
    assert [sample.name async for answer in api.containers.StreamStats(once) for sample in answer.containers] == ["web"]
    refusal = await refused(
        api.containers.StreamStats(pb2.StreamStatsRequest(containers=["web", "idle"], once=True)).read()
    )
    assert refusal.code is NOT_POSSIBLE
    assert "'idle'" in refusal.message
    missing = await refused(api.containers.StreamStats(pb2.StreamStatsRequest(containers=["nobody"])).read())
    assert missing.code is grpc.StatusCode.NOT_FOUND


async def test_statistics_end_with_the_container_they_are_of(api: Api) -> None:
    await api.run(name="web")
    call = api.containers.StreamStats(pb2.StreamStatsRequest(containers=["web"]), timeout=60)
    await call.read()
    await api.remove("web", force=True)
    assert await call.read() is grpc.aio.EOF


async def test_processes(api: Api) -> None:
    await api.run("sleep", "9", name="web")
    (process,) = (await api.containers.ListProcesses(pb2.ListProcessesRequest(container="web"))).processes
    assert (process.pid, process.container_pid, list(process.command)) == (1000, 1, ["sleep", "9"])
    await api.stop("web")
    refusal = await refused(api.containers.ListProcesses(pb2.ListProcessesRequest(container="web")))
    assert refusal.code is NOT_POSSIBLE
