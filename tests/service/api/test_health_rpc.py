"""Health checks through the API: what reaches the node, and what a client sees of the probes."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb2
from slipway.v1 import container_pb2, health_pb2
from slipway.v1 import container_service_pb2 as pb2

from tests.fixtures.api import Api, refused
from tests.fixtures.fake_executor.images import archive, image_config

IMAGE = {"Test": ["CMD-SHELL", "check"], "Interval": 7_000_000_000, "Retries": 9}


async def _create(api: Api, image: str = "busybox", **config: Any) -> str:
    request = pb2.CreateContainerRequest(
        name="web", config=container_pb2.ContainerConfig(image=image, cmd=["sleep"], **config)
    )
    return (await api.containers.CreateContainer(request)).id


async def _with_image(api: Api, health: dict[str, object], **more: object) -> None:
    await api.load(archive(["checked:latest"], image_config(Cmd=["sh"], Healthcheck=health, **more)))


async def test_the_images_check_is_inherited_field_by_field(api: Api) -> None:
    await _with_image(api, IMAGE, Shell=["/bin/ash", "-ec"])
    own = health_pb2.HealthConfig(timeout=Duration(seconds=2), retries=4)
    container_id = await _create(api, "checked", healthcheck=own)
    sent = api.executor.containers[container_id].spec.health_check
    assert list(sent.exec.args) == ["/bin/ash", "-ec", "check"]
    assert (sent.interval.seconds, sent.timeout.seconds, sent.start_interval.seconds, sent.retries) == (7, 2, 5, 4)
    shown = (await api.inspect("web")).config.healthcheck
    assert (list(shown.test), shown.interval.seconds, shown.retries) == (["CMD-SHELL", "check"], 7, 4)


@pytest.mark.parametrize(
    ("own", "probe"),
    [
        (None, "exec"),
        (health_pb2.HealthConfig(test=["NONE"]), None),
        (health_pb2.HealthConfig(tcp=health_pb2.TcpProbe(port=80)), "tcp"),
        (health_pb2.HealthConfig(http=health_pb2.HttpProbe(port=80)), "http"),
        (health_pb2.HealthConfig(grpc=health_pb2.GrpcProbe(port=80, service="x")), "grpc"),
    ],
)
async def test_which_probe(api: Api, own: health_pb2.HealthConfig | None, probe: str | None) -> None:
    await _with_image(api, IMAGE)
    container_id = await _create(api, "checked", healthcheck=own)
    spec = api.executor.containers[container_id].spec
    assert spec.HasField("health_check") is (probe is not None)
    assert spec.health_check.WhichOneof("probe") == probe
    await api.start("web")
    assert (await api.inspect("web")).state.HasField("health") is (probe is not None)


async def test_what_probes_tell(api: Api) -> None:
    container_id = await _create(api, healthcheck=health_pb2.HealthConfig(test=["CMD", "check", "-v"]))
    assert list(api.executor.containers[container_id].spec.health_check.exec.args) == ["check", "-v"]
    await api.start("web")
    assert (await api.inspect("web")).state.health.status == health_pb2.HEALTH_STATUS_STARTING
    found = []
    for status, streak in (
        (runtime_pb2.HEALTH_STATUS_STARTING, 1),
        (runtime_pb2.HEALTH_STATUS_HEALTHY, 0),
        (runtime_pb2.HEALTH_STATUS_HEALTHY, 1),
        (runtime_pb2.HEALTH_STATUS_UNHEALTHY, 2),
    ):
        api.executor.probe(container_id, status, streak)
        await api.followed()
        health = (await api.inspect("web")).state.health
        assert health.failing_streak == streak
        assert [(probe.exit_code, probe.output) for probe in health.log] == [(min(streak, 1), "said")]
        listed = await api.containers.ListContainers(pb2.ListContainersRequest())
        found.append(listed.containers[0].status.partition("(")[2])
    assert found == ["health: starting)", "healthy)", "healthy)", "unhealthy)"]
    call = await api.events(2, action=["health_status"])
    assert [item.event.attributes["health"] for item in call] == ["healthy", "unhealthy"]
    assert (await api.actions(action=["health_status"])) == ["container health_status"] * 2
    await api.stop("web")
    assert not (await api.inspect("web")).state.HasField("health")


async def test_health_comes_with_a_snapshot(api: Api) -> None:
    container_id = await _create(api, healthcheck=health_pb2.HealthConfig(test=["CMD", "check"]))
    await api.start("web")
    await api.executor.down()
    api.executor.probe(container_id, runtime_pb2.HEALTH_STATUS_HEALTHY)
    api.executor.new_journal()
    await api.executor.up()
    await api.events(1, action=["health_status"])
    assert (await api.inspect("web")).state.health.status == health_pb2.HEALTH_STATUS_HEALTHY


async def test_refused(api: Api) -> None:
    check = health_pb2.HealthConfig(test=["PING"], tcp=health_pb2.TcpProbe(port=70000), retries=-1)
    refusal = await refused(_create(api, healthcheck=check))
    assert list(refusal.violations) == [
        "config.healthcheck",
        "config.healthcheck.test",
        "config.healthcheck.tcp.port",
        "config.healthcheck.retries",
    ]


async def test_an_image_with_a_check_that_is_none(api: Api) -> None:
    await _with_image(api, {"Test": ["PING"]})
    refusal = await refused(_create(api, "checked"))
    assert "the image's own config.healthcheck.test" in refusal.message
