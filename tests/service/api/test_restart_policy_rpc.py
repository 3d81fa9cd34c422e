"""Restart policies through the API: what a client sees of a container that its node starts again."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from slipway.executor.v1 import container_spec_pb2 as spec_pb2
from slipway.v1 import container_pb2, health_pb2
from slipway.v1 import container_service_pb2 as pb2

from tests.fixtures.api import Api, refused

ALWAYS = container_pb2.RestartPolicy(name="always")
Status = container_pb2.ContainerStatus


async def _text(api: Api) -> str:
    answer = await api.containers.ListContainers(pb2.ListContainersRequest())
    return answer.containers[0].status


async def _restarting(api: Api) -> str:
    container_id = await api.run(name="web", restart_policy=ALWAYS)
    api.executor.exit(container_id, 3, restart_in=60)
    await api.followed()
    return container_id


async def test_policy_reaches_the_node_with_its_defaults(api: Api) -> None:
    container_id = await api.create(restart_policy=ALWAYS)
    policy = api.executor.containers[container_id].spec.restart_policy
    assert policy.condition == spec_pb2.RESTART_CONDITION_ALWAYS
    assert policy.initial_delay.ToMilliseconds() == 100
    assert (policy.max_delay.seconds, policy.multiplier, policy.reset_after.seconds) == (60, 2, 10)
    shown = (await api.inspect(container_id)).host_config.restart_policy
    assert (shown.name, shown.max_delay.seconds) == ("always", 60)


async def test_policy_of_ones_own(api: Api) -> None:
    policy = container_pb2.RestartPolicy(
        name="on-failure",
        maximum_retry_count=4,
        on_unhealthy=True,
        initial_delay=Duration(nanos=5_000_000),
        max_delay=Duration(seconds=2),
        multiplier=1.5,
        reset_after=Duration(seconds=3),
    )
    check = health_pb2.HealthConfig(test=["CMD", "true"])
    sent = api.executor.containers[await _checked(api, policy, check)].spec.restart_policy
    assert sent.condition == spec_pb2.RESTART_CONDITION_ON_FAILURE
    assert (sent.maximum_retry_count, sent.on_unhealthy, sent.multiplier) == (4, True, 1.5)
    assert (sent.initial_delay.nanos, sent.max_delay.seconds, sent.reset_after.seconds) == (5_000_000, 2, 3)


@pytest.mark.parametrize("check", [None, health_pb2.HealthConfig(test=["NONE"])])
async def test_who_is_never_unhealthy_cannot_be_restarted_for_it(
    api: Api, check: health_pb2.HealthConfig | None
) -> None:
    policy = container_pb2.RestartPolicy(name="always", on_unhealthy=True)
    refusal = await refused(_checked(api, policy, check))
    assert "needs a health check" in refusal.violations["host_config.restart_policy.on_unhealthy"]
    container_id = await api.create()
    update = api.containers.UpdateContainer(pb2.UpdateContainerRequest(container=container_id, restart_policy=policy))
    assert "needs a health check" in (await refused(update)).violations["restart_policy.on_unhealthy"]


async def _checked(api: Api, policy: container_pb2.RestartPolicy, check: health_pb2.HealthConfig | None) -> str:
    request = pb2.CreateContainerRequest(
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"], healthcheck=check),
        host_config=container_pb2.HostConfig(restart_policy=policy),
    )
    return (await api.containers.CreateContainer(request)).id


async def test_what_a_restart_looks_like(api: Api) -> None:
    container_id = await _restarting(api)
    state = (await api.inspect("web")).state
    assert (state.status, state.restarting, state.running, state.pid) == (
        Status.CONTAINER_STATUS_RESTARTING,
        True,
        True,
        0,
    )
    assert state.exit_code == 3
    assert state.next_restart_at.ToNanoseconds() > state.finished_at.ToNanoseconds()
    assert (await _text(api)).startswith("Restarting (3) ")

    api.executor.restart(container_id, fails=True)
    await api.followed()
    failed = (await api.inspect("web")).state
    assert (failed.status, failed.exit_code, failed.error) == (
        Status.CONTAINER_STATUS_RESTARTING,
        128,
        "out of order",
    )
    api.executor.restart(container_id)
    await api.followed()
    shown = await api.inspect("web")
    assert (shown.state.status, shown.restart_count) == (Status.CONTAINER_STATUS_RUNNING, 2)
    assert not shown.state.HasField("next_restart_at")
    assert (await _text(api)).startswith("Up ")
    assert await api.actions(type=["container"]) == [
        "container create",
        "container start",
        "container die",
        "container start",
    ]


async def test_a_restart_by_a_client_resets_the_count(api: Api) -> None:
    container_id = await _restarting(api)
    api.executor.restart(container_id)
    await api.followed()
    await api.containers.RestartContainer(pb2.RestartContainerRequest(container="web"))
    assert (await api.inspect("web")).restart_count == 0
    assert (await api.actions(type=["container"]))[-5:] == [
        "container kill",
        "container die",
        "container stop",
        "container start",
        "container restart",
    ]


@pytest.mark.parametrize("verb", ["stop", "kill", "hang up"])
async def test_a_restart_is_called_off(api: Api, verb: str) -> None:
    container_id = await _restarting(api)
    if verb == "stop":
        assert not (await api.stop("web")).already_stopped
    else:
        signal = "" if verb == "kill" else "HUP"
        await api.containers.KillContainer(pb2.KillContainerRequest(container="web", signal=signal))
    state = (await api.inspect("web")).state
    assert (state.status, state.running, state.exit_code) == (Status.CONTAINER_STATUS_EXITED, False, 3)
    assert not api.executor.containers[container_id].restarting
    assert (await api.stop("web")).already_stopped


async def test_a_start_does_not_wait_for_the_restart(api: Api) -> None:
    await _restarting(api)
    assert not (await api.start("web")).already_started
    state = (await api.inspect("web")).state
    assert (state.status, state.pid > 0) == (Status.CONTAINER_STATUS_RUNNING, True)


async def test_removal_needs_force(api: Api) -> None:
    await _restarting(api)
    refusal = await refused(api.remove("web"))
    assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
    assert "is restarting" in refusal.message
    await api.remove("web", force=True)
    assert api.executor.containers == {}


async def test_a_pending_restart_survives_a_lost_journal(api: Api) -> None:
    container_id = await _restarting(api)
    api.executor.new_journal()
    await api.executor.down()
    api.executor.containers[container_id].restarting = False
    await api.executor.up()
    async with asyncio.timeout(60):
        async for record in api.engine.containers.watch(container_id):
            assert record is not None
            if not record.state.active:
                break
    assert (await api.inspect("web")).state.exit_code == 3


@pytest.mark.parametrize(
    ("host_config", "field", "sentence"),
    [
        ({"restart_policy": {"name": "sometimes"}}, "restart_policy.name", "'sometimes' is not a restart policy"),
        ({"restart_policy": {"name": "always"}, "auto_remove": True}, "restart_policy.name", "auto_remove"),
    ],
)
async def test_refused(api: Api, host_config: dict[str, Any], field: str, sentence: str) -> None:
    refusal = await refused(api.create(**host_config))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in refusal.violations[f"host_config.{field}"]
