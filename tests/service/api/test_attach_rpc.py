"""AttachContainer: what is refused and how, its events, and what clients that vanish leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from api_service.server import request_rules
from api_service.servicers.call import Context
from api_service.servicers.container_servicer import ContainerServicer
from api_service.servicers.long_calls import LongCalls
from common.errors import ResourceExhausted, Unavailable
from tests.fixtures.api import PATIENCE, Api, Refusal, refused, stream_refused


async def create(api: Api, name: str, **config: Any) -> str:
    given = {"image": "busybox", "cmd": ["sh"], **config}
    request = pb2.CreateContainerRequest(name=name, config=container_pb2.ContainerConfig(**given))
    return (await api.containers.CreateContainer(request)).id


async def attach(api: Api, container: str, **target: Any) -> Any:
    call: Any = api.containers.AttachContainer(timeout=PATIENCE)
    await call.write(pb2.AttachContainerRequest(attach=pb2.AttachTarget(container=container, **target)))
    assert (await call.read()).HasField("begin")
    return call


async def attach_refused(api: Api, *messages: pb2.AttachContainerRequest) -> Refusal:
    return await stream_refused(api.containers.AttachContainer, *messages)


def to(container: str, **target: Any) -> pb2.AttachContainerRequest:
    return pb2.AttachContainerRequest(attach=pb2.AttachTarget(container=container, **target))


def size(height: int, width: int) -> container_pb2.ConsoleSize:
    return container_pb2.ConsoleSize(height=height, width=width)


async def test_typed_sized_and_left(api: Api) -> None:
    box = await create(api, "box", tty=True, open_stdin=True)
    call = await attach(api, "box")  # before its start
    await call.write(pb2.AttachContainerRequest(resize=size(5, 6)))
    await call.write(pb2.AttachContainerRequest(stdin=b"typed"))
    assert (await call.read()).output.data == b"typed"
    assert api.executor.sizes == [(box, 5, 6)]
    await api.start("box")
    await call.write(pb2.AttachContainerRequest(stdin=b"\x10"))
    await call.write(pb2.AttachContainerRequest(stdin=b"\x11"))
    answer = await call.read()
    assert (answer.HasField("end"), answer.end.detached) == (True, True)
    call = await attach(api, "box", detach_keys="x")
    await call.write(pb2.AttachContainerRequest(close_stdin=True))
    answer = await call.read()
    assert (answer.HasField("end"), answer.end.detached) == (True, False)
    told = [each for each in await api.actions() if each.endswith("tach")]
    assert told == ["container attach", "container detach", "container attach"]


async def test_which_streams(api: Api) -> None:
    await create(api, "everything", open_stdin=True)
    await create(api, "said", open_stdin=True, attach_stderr=True)
    await create(api, "closed")
    for container, asked, streams in (
        ("everything", {}, (True, True, True)),
        ("everything", {"stdin": False, "stderr": False}, (False, True, False)),
        ("said", {}, (False, False, True)),
        ("said", {"stdout": True}, (False, True, True)),
        ("closed", {"stdin": True}, (False, True, True)),
    ):
        (await attach(api, container, **asked)).cancel()
        target = api.executor.attached[-1]
        assert (target.stdin, target.stdout, target.stderr) == streams


async def test_what_is_refused(api: Api) -> None:
    box = await api.run(name="box")
    for messages, field in (
        ([pb2.AttachContainerRequest(stdin=b"x")], "attach"),
        ([pb2.AttachContainerRequest()], "request"),
        ([to("")], "attach.container"),
        ([to("box", detach_keys="ctrl-1")], "attach.detach_keys"),
        ([to("box"), to("box")], "attach"),
        ([to("box"), pb2.AttachContainerRequest(resize=size(1, 70_000))], "resize.width"),
        ([to("box"), pb2.AttachContainerRequest(stdin=b"x" * 1_100_000)], "stdin"),
    ):
        said = await attach_refused(api, *messages)
        assert (said.code, list(said.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, [field]), said
    said = await attach_refused(api, to("nobody"))
    assert said.code == grpc.StatusCode.NOT_FOUND
    assert said.message.startswith("No such container: nobody;")
    await api.containers.PauseContainer(pb2.PauseContainerRequest(container="box"))
    said = await attach_refused(api, to("box"))
    assert (said.code, said.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONTAINER_PAUSED")
    assert said.message == "container 'box': is paused, unpause it before attach"
    await api.containers.UnpauseContainer(pb2.UnpauseContainerRequest(container="box"))
    api.executor.fault("AttachContainer", error=ResourceExhausted("it reads too slowly", reason="SLOW_READER"))
    said = await attach_refused(api, to("box"))
    assert (said.code, said.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_READER")
    assert api.executor.containers[box].running


async def test_a_resize_that_cannot_be(api: Api) -> None:
    await api.run(name="plain")
    await create(api, "still", tty=True)
    for name, reason, sentence in (
        ("plain", "NO_TERMINAL", "container 'plain': has no terminal; create it with `config.tty`"),
        ("still", "CONTAINER_NOT_RUNNING", ""),
    ):
        said = await refused(
            api.containers.ResizeContainerTty(pb2.ResizeContainerTtyRequest(container=name, size=size(1, 2)))
        )
        assert (said.code, said.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
        assert sentence in said.message


async def test_clients_that_vanish_leave_nothing(api: Api) -> None:
    await api.run(name="box")
    before = len(asyncio.all_tasks())
    calls = [await attach(api, "box") for _ in range(5)]
    for call in calls:
        await call.write(pb2.AttachContainerRequest(stdin=b"x"))
        call.cancel()
    async with asyncio.timeout(PATIENCE):
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.005)
    assert api.executor.talking == 0


async def test_a_service_that_stops_waits_for_nobody(api: Api) -> None:
    long_calls = LongCalls()
    servicer = ContainerServicer(api.engine, request_rules(), long_calls)
    asked = asyncio.Event()

    async def silent() -> AsyncIterator[pb2.AttachContainerRequest]:
        asked.set()
        await asyncio.get_running_loop().create_future()
        yield pb2.AttachContainerRequest()

    answers = servicer.AttachContainer(silent(), cast("Context", None))
    answer = asyncio.ensure_future(anext(answers))
    await asked.wait()
    await long_calls.end(timeout=PATIENCE)
    with pytest.raises(Unavailable) as raised:
        await answer
    assert raised.value.reason == "STOPPING"
