"""A container from create to remove, and what its events say."""

from __future__ import annotations

from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from tests.fixtures.api import Api


async def test_from_create_to_remove(api: Api) -> None:
    container_id = await api.create("sleep", "100", name="web")
    created = await api.inspect("web")
    assert created.id == container_id
    assert created.state.status == container_pb2.CONTAINER_STATUS_CREATED
    assert not created.state.HasField("exit_code")
    assert (created.path, list(created.args)) == ("sleep", ["100"])
    assert created.config.hostname == container_id[:12]

    assert not (await api.start("web")).already_started
    running = await api.inspect(container_id[:12])
    assert running.state.running
    assert running.state.pid > 0
    assert running.network_settings.networks["bridge"].ip_address == "172.17.0.2"
    assert (await api.start("web")).already_started

    assert not (await api.stop("web")).already_stopped
    stopped = await api.inspect("/web")
    assert stopped.state.status == container_pb2.CONTAINER_STATUS_EXITED
    assert stopped.state.exit_code == 143
    assert stopped.network_settings.networks["bridge"].ip_address == ""
    assert (await api.stop("web")).already_stopped
    assert (await api.wait("web")).exit_code == 143

    await api.remove("web")
    assert await api.names() == []
    assert api.executor.containers == {}
    assert await api.actions(type=["container", "network"]) == [
        "container create",
        "network connect",
        "container start",
        "container kill",
        "container die",
        "network disconnect",
        "container stop",
        "container destroy",
    ]


async def test_logs(api: Api) -> None:
    container_id = await api.run()
    api.executor.write(container_id, b"one\n")
    api.executor.write(container_id, b"two\n", stderr=True)
    call = api.containers.StreamLogs(pb2.StreamLogsRequest(container=container_id))
    assert [(line.stream, line.data) async for answer in call for line in answer.lines] == [
        (pb2.LOG_STREAM_STDOUT, b"one\n"),
        (pb2.LOG_STREAM_STDERR, b"two\n"),
    ]
