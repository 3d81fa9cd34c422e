"""One session: what is typed goes there, what is written comes here, and its end is an exit code."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as container_service
from slipway.v1 import container_service_pb2_grpc as container_rpc
from slipway.v1 import exec_service_pb2 as exec_service
from slipway.v1 import exec_service_pb2_grpc as exec_rpc

from tests.shell import terminal

UNKNOWN = 125  # the exit code of what has none
_TIME = 30.0  # seconds for a call that does not last
_GRACE = 2.0  # seconds from the process's end to that of its streams


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """`note`: what is to be told about it, if anything."""

    exit_code: int
    note: str = ""


async def run_exec(channel: grpc.aio.Channel, name: str, command: Sequence[str], *, detach_keys: str) -> Ended:
    """A program of its own in the container. Raises AioRpcError, BrokenPipeError."""
    execs = exec_rpc.ExecServiceStub(channel)
    tty = terminal.is_terminal()
    config = exec_service.ExecConfig(
        cmd=command, tty=tty, attach_stdin=True, attach_stdout=True, attach_stderr=True, detach_keys=detach_keys
    )
    request = exec_service.CreateExecRequest(container=name, config=config)
    created = await execs.CreateExec(request, timeout=_TIME)
    call: Any = execs.StartExec()
    target = exec_service.ExecTarget(exec=created.id, console_size=terminal.size() if tty else None)
    await call.write(exec_service.StartExecRequest(start=target))
    answers = aiter(call)  # not read(), which gives up what has arrived when a write fails
    await anext(answers)
    end = await _talk(call, answers, exec_service.StartExecRequest, tty=tty)
    if end.detached:
        return Ended(exit_code=0, note=f"detached; exec {created.id[:12]} goes on in {name}")
    return _ended(end)


async def attach(channel: grpc.aio.Channel, name: str, *, detach_keys: str) -> Ended:
    """The container's own process, whether it runs or is still to be started. Raises AioRpcError, BrokenPipeError."""
    containers = container_rpc.ContainerServiceStub(channel)
    async with _waiting(channel, name) as waiting:
        call: Any = containers.AttachContainer()
        target = container_service.AttachTarget(container=name, detach_keys=detach_keys)
        await call.write(container_service.AttachContainerRequest(attach=target))
        answers = aiter(call)
        tty = (await anext(answers)).begin.tty and terminal.is_terminal()
        talking = asyncio.create_task(_talk(call, answers, container_service.AttachContainerRequest, tty=tty))
        try:
            await asyncio.wait([talking, waiting], return_when=asyncio.FIRST_COMPLETED)
            # It may have ended before this was attached, which then waits for the next start.
            await asyncio.wait([talking], timeout=_GRACE if not talking.done() else None)
        finally:
            talking.cancel()
            await asyncio.wait([talking])
        if not talking.cancelled() and talking.result().detached:
            return Ended(exit_code=0, note=f"detached; {name} goes on")
        return _ended(await waiting)


def _ended(end: exec_service.ExecEnd | container_service.WaitContainerResponse) -> Ended:
    known = end.HasField("exit_code")
    return Ended(exit_code=end.exit_code if known else UNKNOWN, note="" if known else end.error)


@asynccontextmanager
async def _waiting(
    channel: grpc.aio.Channel, name: str
) -> AsyncIterator[asyncio.Task[container_service.WaitContainerResponse]]:
    """For the exit code of the process that runs, or runs next; asked for first, so that none is missed."""
    # As a stream of one answer: grpc.aio keeps the headers of others until the answer is there.
    wait = channel.unary_stream(
        "/slipway.v1.ContainerService/WaitContainer",
        request_serializer=container_service.WaitContainerRequest.SerializeToString,
        response_deserializer=container_service.WaitContainerResponse.FromString,
    )
    condition = container_service.WAIT_CONDITION_NEXT_EXIT
    call = wait(container_service.WaitContainerRequest(container=name, condition=condition))

    async def outcome() -> container_service.WaitContainerResponse:
        async for answer in call:
            return answer
        raise ConnectionError("the service ended the wait without an answer")

    waiting = asyncio.create_task(outcome())
    try:
        await call.initial_metadata()
        yield waiting
    finally:
        call.cancel()
        waiting.cancel()
        await asyncio.wait([waiting])


async def _talk(call: Any, answers: AsyncIterator[Any], message: Callable[..., Any], *, tty: bool) -> Any:
    """The session's last answer."""
    with ExitStack() as stack:
        stack.callback(call.cancel)
        if tty:
            stack.enter_context(terminal.raw())
        sending = asyncio.create_task(_send(call, message, tty=tty))
        try:
            return await _receive(answers)
        finally:
            sending.cancel()
            await asyncio.wait([sending])


async def _receive(answers: AsyncIterator[Any]) -> Any:
    async for answer in answers:
        if answer.HasField("end"):
            return answer.end
        error = answer.output.stream == container_service.OUTPUT_STREAM_STDERR
        await terminal.show(answer.output.data, terminal.STDERR if error else terminal.STDOUT)
    raise ConnectionError("the service ended the session without saying why")


async def _send(call: Any, message: Callable[..., Any], *, tty: bool) -> None:
    """Until standard input ends. What is wrong with the call is told by its answers."""
    writing = asyncio.Lock()

    async def send(**what: Any) -> None:
        async with writing:
            await call.write(message(**what))

    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        async with _resizing(send) if tty else contextlib.nullcontext():
            async for data in terminal.typed():
                await send(stdin=data)
            async with writing:
                await call.done_writing()


@asynccontextmanager
async def _resizing(send: Callable[..., Any]) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    async def follow() -> None:
        sent: container_pb2.ConsoleSize | None = None
        while True:
            await changed.wait()
            changed.clear()
            if (size := terminal.size()) != sent:
                await send(resize=size)
                sent = size

    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    # Once at the beginning: it may have changed before anybody listened.
    changed.set()
    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
        following.cancel()
        await asyncio.wait([following])
