"""depends_on: what is looked up at create, and what a start starts and waits for."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from slipway.executor.v1 import container_spec_pb2 as spec_pb2
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb2
from slipway.v1 import container_pb2, health_pb2
from slipway.v1 import container_service_pb2 as pb2

from tests.fixtures.api import Api, refused


def on(container: str, condition: str = "", *, seconds: float = 0) -> container_pb2.Dependency:
    timeout = Duration()
    timeout.FromNanoseconds(int(seconds * 1e9))
    return container_pb2.Dependency(container=container, condition=condition, timeout=timeout)


async def _checked(api: Api, name: str) -> str:
    config = container_pb2.ContainerConfig(
        image="busybox", cmd=["sleep"], healthcheck=health_pb2.HealthConfig(test=["CMD", "check"])
    )
    return (await api.containers.CreateContainer(pb2.CreateContainerRequest(name=name, config=config))).id


async def _started(api: Api) -> list[str]:
    names = {(await api.inspect(name)).id: name for name in await api.names()}
    return [names[entry.container_id] for entry in api.executor.journal if entry.WhichOneof("event") == "started"]


async def test_ids_reach_the_node(api: Api) -> None:
    db = await api.create(name="db")
    web = await api.create(name="web", depends_on=[on("db")])
    [sent] = api.executor.containers[web].spec.dependencies
    assert (sent.container_id, sent.condition) == (db, spec_pb2.DEPENDENCY_CONDITION_STARTED)
    assert sent.timeout.seconds == 60
    [shown] = (await api.inspect("web")).host_config.depends_on
    assert (shown.container, shown.condition) == (db, "started")


@pytest.mark.parametrize(
    ("dependencies", "code", "sentence"),
    [
        ([on("nobody")], grpc.StatusCode.NOT_FOUND, "No such container: nobody"),
        ([on("web")], grpc.StatusCode.NOT_FOUND, "No such container: web"),  # itself
        ([on("db", "healthy")], grpc.StatusCode.INVALID_ARGUMENT, "container 'db' has no health check"),
        ([on("db"), on("db", "started")], grpc.StatusCode.INVALID_ARGUMENT, "container 'db' is named twice"),
        ([on("db", "ready")], grpc.StatusCode.INVALID_ARGUMENT, "'ready' is none of 'started', 'healthy'"),
        ([on("")], grpc.StatusCode.INVALID_ARGUMENT, "names no container"),
    ],
)
async def test_refused(
    api: Api, dependencies: list[container_pb2.Dependency], code: grpc.StatusCode, sentence: str
) -> None:
    await api.create(name="db")
    refusal = await refused(api.create(name="web", depends_on=dependencies))
    assert refusal.code == code
    assert sentence in refusal.message
    assert await api.names() == ["db"]


async def test_a_renamed_container_cannot_close_a_circle(api: Api) -> None:
    await api.create(name="one")
    await api.create(name="two", depends_on=[on("one")])
    await api.containers.RenameContainer(pb2.RenameContainerRequest(container="one", new_name="old"))
    await api.create(name="one", depends_on=[on("two")])
    await api.start("one")
    assert await _started(api) == ["old", "two", "one"]


async def test_each_is_started_once_and_before_its_dependents(api: Api) -> None:
    await api.create(name="base")
    await api.create(name="left", depends_on=[on("base")])
    await api.create(name="right", depends_on=[on("base")])
    await api.create(name="top", depends_on=[on("left"), on("right")])
    await api.start("top")
    assert await _started(api) == ["base", "left", "right", "top"]
    assert (await api.start("top")).already_started


async def test_what_is_unhealthy_or_late_is_named(api: Api) -> None:
    db = await _checked(api, "db")
    await api.create(name="web", depends_on=[on("db", "healthy", seconds=0.2)])
    late = await refused(api.start("web"))
    assert (late.code, late.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEPENDENCY_TOO_LATE")
    assert "it depends on 'db', which is not healthy in time (running, starting)" in late.message
    api.executor.probe(db, runtime_pb2.HEALTH_STATUS_UNHEALTHY, 3)
    await api.followed()
    ill = await refused(api.start("web"))
    assert (ill.code, ill.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DEPENDENCY_NOT_MET")
    assert "'db', which is not healthy (running, unhealthy)" in ill.message
    assert await _started(api) == ["db"]


async def test_it_waits_until_it_is_healthy(api: Api) -> None:
    db = await _checked(api, "db")
    await api.create(name="web", depends_on=[on("db", "healthy")])
    start = asyncio.ensure_future(api.start("web"))
    await api.executor.until(lambda: len(api.executor.journal) == 1)
    await api.followed()
    assert not start.done()
    api.executor.probe(db, runtime_pb2.HEALTH_STATUS_HEALTHY)
    await start
    assert await _started(api) == ["db", "web"]


async def test_completed_successfully(api: Api) -> None:
    job = await api.create(name="job")
    await api.create(name="web", depends_on=[on("job", "completed_successfully")])
    start = asyncio.ensure_future(api.start("web"))
    await api.executor.until(lambda: len(api.executor.journal) == 1)
    api.executor.exit(job, 2)
    refusal = await refused(start)
    assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
    assert "'job', which has not completed successfully (exited with code 2)" in refusal.message
    start = asyncio.ensure_future(api.start("web"))
    await api.executor.until(lambda: len(api.executor.journal) == 3)
    api.executor.exit(job, 0)
    await start
    await api.stop("web")
    # What has completed is not run again.
    await api.start("web")
    assert await _started(api) == ["job", "job", "web", "web"]


async def test_a_dependency_that_cannot_be_had(api: Api) -> None:
    await api.create("missing", name="db")
    await api.create(name="web", depends_on=[on("db")])
    refusal = await refused(api.start("web"))
    assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
    assert "it depends on 'db', which could not be started" in refusal.message
    await api.remove("db")
    gone = await refused(api.start("web"))
    assert gone.code == grpc.StatusCode.FAILED_PRECONDITION
    assert "which was removed" in gone.message


async def test_a_restart_starts_what_is_missing(api: Api) -> None:
    await api.create(name="db")
    await api.create(name="web", depends_on=[on("db")])
    await api.start("web")
    await api.stop("db")
    await api.containers.RestartContainer(pb2.RestartContainerRequest(container="web"))
    assert await _started(api) == ["db", "web", "db", "web"]
