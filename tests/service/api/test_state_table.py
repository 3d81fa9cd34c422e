"""Which verb is possible in which state: Docker's table of today, one test a cell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from common.errors import Internal
from tests.fixtures.api import Api, refused

NAME = "web"


async def created(api: Api) -> None:
    await api.create(name=NAME)


async def running(api: Api) -> None:
    await api.run(name=NAME)


async def paused(api: Api) -> None:
    await api.run(name=NAME)
    await pause(api)


async def restarting(api: Api) -> None:
    container_id = await api.run(name=NAME, restart_policy=container_pb2.RestartPolicy(name="always"))
    api.executor.exit(container_id, 3, restart_in=60)
    await api.followed()


async def exited(api: Api) -> None:
    container_id = await api.run(name=NAME)
    api.executor.exit(container_id, 3)
    await api.wait(NAME)


async def failed(api: Api) -> None:
    await api.create("missing", name=NAME)
    await refused(api.start(NAME))


async def dead(api: Api) -> None:
    await api.create(name=NAME)
    api.executor.fault("RemoveContainer", error=Internal("device busy"))
    await refused(api.remove(NAME))


async def removing(api: Api) -> None:
    await api.create(name=NAME)
    api.executor.fault("RemoveContainer", lost=True)
    await refused(api.remove(NAME))


async def start(api: Api) -> object:
    return (await api.start(NAME)).already_started


async def stop(api: Api) -> object:
    return (await api.stop(NAME)).already_stopped


async def kill(api: Api) -> object:
    await api.containers.KillContainer(pb2.KillContainerRequest(container=NAME))
    return None


async def restart(api: Api) -> object:
    await api.containers.RestartContainer(pb2.RestartContainerRequest(container=NAME))
    return None


async def pause(api: Api) -> object:
    await api.containers.PauseContainer(pb2.PauseContainerRequest(container=NAME))
    return None


async def unpause(api: Api) -> object:
    await api.containers.UnpauseContainer(pb2.UnpauseContainerRequest(container=NAME))
    return None


async def update(api: Api) -> object:
    policy = container_pb2.RestartPolicy(name="always")
    await api.containers.UpdateContainer(pb2.UpdateContainerRequest(container=NAME, restart_policy=policy))
    return (await api.inspect(NAME)).host_config.restart_policy.name


async def remove(api: Api) -> object:
    await api.remove(NAME)
    return None


async def force_remove(api: Api) -> object:
    await api.remove(NAME, force=True)
    return None


async def rename(api: Api) -> object:
    await api.containers.RenameContainer(pb2.RenameContainerRequest(container=NAME, new_name="db"))
    assert await api.names() == ["db"]
    return None


async def logs(api: Api) -> object:
    return [line async for line in api.containers.StreamLogs(pb2.StreamLogsRequest(container=NAME))]


REFUSED = object()
FAILS = object()  # as every start of this container does
TABLE: dict[Callable[[Api], Awaitable[None]], dict[Callable[[Api], Awaitable[object]], object]] = {
    created: {
        start: False, stop: True, kill: REFUSED, restart: None, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: "always", rename: None, logs: [],
    },
    running: {
        start: True, stop: False, kill: None, restart: None, pause: None, unpause: REFUSED, remove: REFUSED,
        force_remove: None, update: "always", rename: None, logs: [],
    },
    paused: {
        start: REFUSED, stop: False, kill: None, restart: None, pause: REFUSED, unpause: None, remove: REFUSED,
        force_remove: None, update: "always", rename: None, logs: [],
    },
    # Docker leaves a start of it to its policy; here it is started at once.
    restarting: {
        start: False, stop: False, kill: None, restart: None, pause: REFUSED, unpause: REFUSED, remove: REFUSED,
        force_remove: None, update: "always", rename: None, logs: [],
    },
    exited: {
        start: False, stop: True, kill: REFUSED, restart: None, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: "always", rename: None, logs: [],
    },
    failed: {
        start: FAILS, stop: True, kill: REFUSED, restart: FAILS, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: "always", rename: None, logs: [],
    },
    dead: {
        start: REFUSED, stop: True, kill: REFUSED, restart: REFUSED, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: REFUSED, rename: REFUSED, logs: REFUSED,
    },
    removing: {
        start: REFUSED, stop: True, kill: REFUSED, restart: REFUSED, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: REFUSED, rename: REFUSED, logs: REFUSED,
    },
}  # fmt: skip
CELLS = [
    pytest.param(state, verb, expected, id=f"{state.__name__}-{verb.__name__}")
    for state, row in TABLE.items()
    for verb, expected in row.items()
]


@pytest.mark.parametrize(("state", "verb", "expected"), CELLS)
async def test_verb_in_state(
    api: Api, state: Callable[[Api], Awaitable[None]], verb: Callable[[Api], Awaitable[object]], expected: object
) -> None:
    await state(api)
    if expected is REFUSED:
        refusal = await refused(verb(api))
        assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
        assert refusal.message.startswith("container 'web': ")
        assert refusal.resource is not None
        assert refusal.resource.resource_type == "container"
    elif expected is FAILS:
        refusal = await refused(verb(api))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "COMMAND_NOT_FOUND")
    else:
        assert await verb(api) == expected


@pytest.mark.parametrize(
    "verb", [start, stop, kill, restart, pause, unpause, remove, force_remove, update, rename, logs]
)
async def test_verb_on_nobody(api: Api, verb: Callable[[Api], Awaitable[object]]) -> None:
    refusal = await refused(verb(api))
    assert refusal.code == grpc.StatusCode.NOT_FOUND
    assert refusal.message == "No such container: web"
    assert refusal.resource is not None
    assert (refusal.resource.resource_type, refusal.resource.resource_name) == ("container", "web")
