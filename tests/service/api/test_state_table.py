"""Which verb is possible in which state: Docker's table of today, one test a cell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import exec_service_pb2 as exec_pb2

from common.errors import Internal
from tests.fixtures.api import PATIENCE, Api, converse, refused

NAME = "web"


async def created(api: Api) -> None:
    await api.create(name=NAME, tty=True)


async def running(api: Api) -> None:
    await api.run(name=NAME, tty=True)


async def paused(api: Api) -> None:
    await api.run(name=NAME, tty=True)
    await pause(api)


async def restarting(api: Api) -> None:
    container_id = await api.run(name=NAME, tty=True, restart_policy=container_pb2.RestartPolicy(name="always"))
    api.executor.exit(container_id, 3, restart_in=60)
    await api.followed()


async def exited(api: Api) -> None:
    container_id = await api.run(name=NAME, tty=True)
    api.executor.exit(container_id, 3)
    await api.wait(NAME)


async def failed(api: Api) -> None:
    await api.create("missing", name=NAME, tty=True)
    await refused(api.start(NAME))


async def dead(api: Api) -> None:
    await api.create(name=NAME, tty=True)
    api.executor.fault("RemoveContainer", error=Internal("device busy"))
    await refused(api.remove(NAME))


async def removing(api: Api) -> None:
    await api.create(name=NAME, tty=True)
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


async def exec_(api: Api) -> object:
    """Created, started, and what it ended with."""
    return await run_exec(api, await new_exec(api))


async def attach(api: Api) -> object:
    answers = await converse(
        api.containers.AttachContainer(timeout=PATIENCE),
        pb2.AttachContainerRequest(attach=pb2.AttachTarget(container=NAME)),
        pb2.AttachContainerRequest(close_stdin=True),
    )
    return [answer.WhichOneof("response") for answer in answers]


async def resize(api: Api) -> object:
    size = container_pb2.ConsoleSize(height=24, width=80)
    await api.containers.ResizeContainerTty(pb2.ResizeContainerTtyRequest(container=NAME, size=size))
    return api.executor.sizes[-1][1:]


async def top(api: Api) -> object:
    answer = await api.containers.ListProcesses(pb2.ListProcessesRequest(container=NAME))
    return [process.container_pid for process in answer.processes]


async def stats(api: Api) -> object:
    request = pb2.StreamStatsRequest(containers=[NAME], once=True)
    return [
        sample.name
        async for answer in api.containers.StreamStats(request, timeout=PATIENCE)
        for sample in answer.containers
    ]


async def changes(api: Api) -> object:
    answer = await api.containers.ListChanges(pb2.ListChangesRequest(container=NAME))
    return [change.path for change in answer.changes]


async def copy(api: Api) -> object:
    """In and out again."""
    target = pb2.CopyTarget(container=NAME, path="/file")
    requests = [pb2.CopyToContainerRequest(target=target), pb2.CopyToContainerRequest(chunk=b"content")]
    await api.containers.CopyToContainer(iter(requests))
    return await copy_out(api)


async def copy_out(api: Api) -> object:
    api.executor.files[(await api.inspect(NAME)).id, "/file"] = b"content"
    call = api.containers.CopyFromContainer(pb2.CopyFromContainerRequest(container=NAME, path="/file"))
    return b"".join([answer.chunk async for answer in call])


async def export(api: Api) -> object:
    call = api.containers.ExportContainer(pb2.ExportContainerRequest(container=NAME))
    return b"".join([answer.chunk async for answer in call])


async def wait(api: Api) -> object:
    """What it ended with; GOES_ON: it does not end yet."""
    state = (await api.inspect(NAME)).state
    patience = 0.1 if state.running or state.restarting else PATIENCE
    try:
        answer = await api.containers.WaitContainer(pb2.WaitContainerRequest(container=NAME), timeout=patience)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.DEADLINE_EXCEEDED:
            raise
        return GOES_ON
    return answer.exit_code if answer.HasField("exit_code") else None


async def inspect(api: Api) -> object:
    return (await api.inspect(NAME)).name


async def new_exec(api: Api) -> str:
    config = exec_pb2.ExecConfig(cmd=["true"], attach_stdout=True)
    return (await api.execs.CreateExec(exec_pb2.CreateExecRequest(container=NAME, config=config))).id


async def run_exec(api: Api, exec_id: str) -> int:
    answers = await converse(
        api.execs.StartExec(timeout=PATIENCE),
        exec_pb2.StartExecRequest(start=exec_pb2.ExecTarget(exec=exec_id)),
        exec_pb2.StartExecRequest(close_stdin=True),
    )
    exit_code: int = answers[-1].end.exit_code
    return exit_code


REFUSED = object()
GOES_ON = object()
ATTACHED = ["begin", "end"]
SIZE = (24, 80)
FAILS = object()  # as every start of this container does
TABLE: dict[Callable[[Api], Awaitable[None]], dict[Callable[[Api], Awaitable[object]], object]] = {
    created: {
        start: False, stop: True, kill: REFUSED, restart: None, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: "always", rename: None, logs: [],
        exec_: REFUSED, attach: ATTACHED, resize: REFUSED, top: REFUSED, stats: REFUSED, wait: None,
        changes: [], copy: b"content", copy_out: b"content", export: b"the root", inspect: NAME,
    },
    running: {
        start: True, stop: False, kill: None, restart: None, pause: None, unpause: REFUSED, remove: REFUSED,
        force_remove: None, update: "always", rename: None, logs: [],
        exec_: 0, attach: ATTACHED, resize: SIZE, top: [1], stats: [NAME], wait: GOES_ON,
        changes: [], copy: b"content", copy_out: b"content", export: b"the root", inspect: NAME,
    },
    paused: {
        start: REFUSED, stop: False, kill: None, restart: None, pause: REFUSED, unpause: None, remove: REFUSED,
        force_remove: None, update: "always", rename: None, logs: [],
        exec_: REFUSED, attach: REFUSED, resize: SIZE, top: [1], stats: [NAME], wait: GOES_ON,
        changes: [], copy: b"content", copy_out: b"content", export: b"the root", inspect: NAME,
    },
    # Docker leaves a start of it to its policy; here it is started at once. Docker refuses to attach to it; here the
    # client waits for its next run, as it does for the first one of a container that is created.
    restarting: {
        start: False, stop: False, kill: None, restart: None, pause: REFUSED, unpause: REFUSED, remove: REFUSED,
        force_remove: None, update: "always", rename: None, logs: [],
        exec_: REFUSED, attach: ATTACHED, resize: REFUSED, top: REFUSED, stats: REFUSED, wait: GOES_ON,
        changes: [], copy: b"content", copy_out: b"content", export: b"the root", inspect: NAME,
    },
    exited: {
        start: False, stop: True, kill: REFUSED, restart: None, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: "always", rename: None, logs: [],
        exec_: REFUSED, attach: ATTACHED, resize: REFUSED, top: REFUSED, stats: REFUSED, wait: 3,
        changes: [], copy: b"content", copy_out: b"content", export: b"the root", inspect: NAME,
    },
    failed: {
        start: FAILS, stop: True, kill: REFUSED, restart: FAILS, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: "always", rename: None, logs: [],
        exec_: REFUSED, attach: ATTACHED, resize: REFUSED, top: REFUSED, stats: REFUSED, wait: 127,
        changes: [], copy: b"content", copy_out: b"content", export: b"the root", inspect: NAME,
    },
    dead: {
        start: REFUSED, stop: True, kill: REFUSED, restart: REFUSED, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: REFUSED, rename: REFUSED, logs: REFUSED,
        exec_: REFUSED, attach: REFUSED, resize: REFUSED, top: REFUSED, stats: REFUSED, wait: None,
        changes: REFUSED, copy: REFUSED, copy_out: REFUSED, export: REFUSED, inspect: NAME,
    },
    removing: {
        start: REFUSED, stop: True, kill: REFUSED, restart: REFUSED, pause: REFUSED, unpause: REFUSED, remove: None,
        force_remove: None, update: REFUSED, rename: REFUSED, logs: REFUSED,
        exec_: REFUSED, attach: REFUSED, resize: REFUSED, top: REFUSED, stats: REFUSED, wait: None,
        changes: REFUSED, copy: REFUSED, copy_out: REFUSED, export: REFUSED, inspect: NAME,
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


@pytest.mark.parametrize("verb", list(TABLE[running]))
async def test_verb_on_nobody(api: Api, verb: Callable[[Api], Awaitable[object]]) -> None:
    refusal = await refused(verb(api))
    assert refusal.code == grpc.StatusCode.NOT_FOUND
    assert refusal.message.startswith("No such container: web;")
    assert refusal.resource is not None
    assert (refusal.resource.resource_type, refusal.resource.resource_name) == ("container", "web")


@pytest.mark.parametrize("state", [paused, restarting, exited])
async def test_an_exec_starts_only_in_a_container_that_runs(api: Api, state: Callable[[Api], Awaitable[None]]) -> None:
    """It was created in time: in between its container left the state that it needs. Docker checks again, too."""
    container_id = await api.run(name=NAME, restart_policy=container_pb2.RestartPolicy(name="always"))
    made = await new_exec(api)
    if state is paused:
        await pause(api)
    else:
        api.executor.exit(container_id, 3, restart_in=60 if state is restarting else None)
        await api.followed()
    refusal = await refused(run_exec(api, made))
    assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.message.startswith("container 'web': ")
    await api.remove(NAME, force=True)
    assert (await refused(run_exec(api, made))).code == grpc.StatusCode.NOT_FOUND
