"""Publishing and unpublishing ports of containers that are there already, as clients see it."""

from __future__ import annotations

from pathlib import Path

import grpc
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from common.errors import AlreadyExists, FailedPrecondition
from tests.fixtures.api import Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor

Shown = dict[str, list[tuple[str, str]]]


def bindings(ports: dict[str, str]) -> dict[str, container_pb2.PortBindings]:
    return {
        port: container_pb2.PortBindings(bindings=[container_pb2.PortBinding(host_ip="127.0.0.1", host_port=number)])
        for port, number in ports.items()
    }


def update(container: str, ports: dict[str, str] | None = None, *unpublish: str) -> pb2.UpdateContainerRequest:
    return pb2.UpdateContainerRequest(container=container, port_bindings=bindings(ports or {}), unpublish=unpublish)


async def asked_and_shown(api: Api, container: str) -> tuple[dict[str, str], dict[str, str]]:
    """Ports of the host by the container's: of `host_config`, and of `network_settings`."""
    found = await api.inspect(container)
    return (
        {port: place.bindings[0].host_port for port, place in found.host_config.port_bindings.items()},
        {port: place.bindings[0].host_port for port, place in found.network_settings.ports.items()},
    )


async def test_a_running_container_publishes_more_and_less(api: Api) -> None:
    container = await api.run(name="web")
    await api.containers.UpdateContainer(update("web", {"80": "8080", "81-82/udp": "9001-9002"}))
    wanted = {"80/tcp": "8080", "81/udp": "9001", "82/udp": "9002"}
    assert await asked_and_shown(api, "web") == ({"80/tcp": "8080", "81-82/udp": "9001-9002"}, wanted)
    assert (await api.actions())[-1] == "container update"
    answer = await api.containers.UpdateContainer(update("web", {"90": "8090"}, "80", "81/udp", "99"))
    assert list(answer.warnings) == ["unpublish: port 99 is not published."]
    left = {"82/udp": "9002", "90/tcp": "8090"}
    assert await asked_and_shown(api, "web") == (left, left)
    told = api.executor.containers[container].updates[-1].published_ports
    assert [(port.host_port, port.container_port) for port in told] == [(9002, 82), (8090, 90)]


async def test_a_stopped_container_has_them_from_its_next_start_on(api: Api) -> None:
    container = await api.create(name="web")
    await api.containers.UpdateContainer(update("web", {"80": "8080"}))
    assert await asked_and_shown(api, "web") == ({"80/tcp": "8080"}, {})
    assert [port.host_port for port in api.executor.containers[container].spec.published_ports] == [8080]


async def test_other_updates_leave_the_ports_alone(api: Api) -> None:
    await api.run(name="web")
    await api.containers.UpdateContainer(update("web", {"80": "8080"}))
    request = pb2.UpdateContainerRequest(container="web")
    request.restart_policy.name = "always"
    await api.containers.UpdateContainer(request)
    assert await asked_and_shown(api, "web") == ({"80/tcp": "8080"}, {"80/tcp": "8080"})


async def test_every_violation_at_once_and_nothing_asked_of_the_node(api: Api) -> None:
    await api.run(name="web")
    request = update("web", {"80": "1-2-3", "port": ""}, "0")
    request.resources.memory = -1
    refusal = await refused(api.containers.UpdateContainer(request))
    assert set(refusal.violations) == {
        "resources.memory",
        'port_bindings["80"].bindings[0].host_port',
        'port_bindings["port"]',
        "unpublish[0]",
    }
    assert "UpdateContainer" not in api.executor.calls


async def test_a_port_that_is_taken_names_its_holder_and_changes_nothing(api: Api) -> None:
    holder = await api.run(name="holder")
    await api.run(name="web")
    await api.containers.UpdateContainer(update("web", {"80": "8080"}))
    told = await api.actions()
    taken = AlreadyExists(
        f"taken by container '{holder}'",
        resource_type="port",
        resource_name="8081/tcp",
        owner=holder,
        reason="PORT_ALLOCATED",
    )
    api.executor.fault("UpdateContainer", error=taken)
    refusal = await refused(api.containers.UpdateContainer(update("web", {"81": "8081"}, "80")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "PORT_ALLOCATED")
    assert f"container 'holder' ({holder[:12]})" in refusal.message
    assert await asked_and_shown(api, "web") == ({"80/tcp": "8080"}, {"80/tcp": "8080"})
    assert await api.actions() == told


async def test_a_lost_answer_can_be_repeated(api: Api) -> None:
    container = await api.run(name="web")
    api.executor.fault("UpdateContainer", lost=True)
    assert (await refused(api.containers.UpdateContainer(update("web", {"80": "8080"})))).code is (
        grpc.StatusCode.UNAVAILABLE
    )
    updates = api.executor.containers[container].updates
    await api.executor.until(lambda: len(updates) == 2)
    assert not updates[-1].published_ports  # taken back
    for _ in range(2):
        await api.containers.UpdateContainer(update("web", {"80": "8080"}))
        assert await asked_and_shown(api, "web") == ({"80/tcp": "8080"}, {"80/tcp": "8080"})


async def test_a_service_that_dies_in_between_takes_it_back(tmp_path: Path, executor: FakeExecutor) -> None:
    async with running_api(tmp_path, executor) as api:
        await api.load()
        container = await api.run(name="web")
        executor.fault("UpdateContainer", lost=True)
        executor.fault("UpdateContainer", error=FailedPrecondition("not now"))
        await refused(api.containers.UpdateContainer(update("web", {"80": "8080"})))
        await executor.until(lambda: executor.calls.count("UpdateContainer") == 2)
    async with running_api(tmp_path, executor) as api:
        updates = executor.containers[container].updates
        await executor.until(lambda: len(updates) == 2)
        await api.followed()
        assert await asked_and_shown(api, "web") == ({}, {})
