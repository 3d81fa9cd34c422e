"""Exec and attach of a real executor: what its clients get, and what vanished and slow ones leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from typing import Any

import grpc
import pytest
from slipway.executor.v1 import runtime_service_pb2 as pb

from tests.fixtures.executor import ExecutorProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE = 60.0  # seconds


def exec_request(box: str, *args: str, **options: Any) -> pb.ExecRequest:
    given = {"id": secrets.token_hex(32), "env": ["PATH=/bin"], "stdout": True, "stderr": True, **options}
    return pb.ExecRequest(exec=pb.ExecSpec(container_id=box, args=args, **given))


def attach_request(box: str, **options: Any) -> pb.AttachContainerRequest:
    given = {"stdin": True, "stdout": True, "stderr": True, **options}
    return pb.AttachContainerRequest(attach=pb.AttachTarget(container_id=box, **given))


async def read_until(call: Any, text: bytes) -> bytes:
    """What an attachment says, up to a text."""
    seen = b""
    while text not in seen:
        answer = await call.read()
        assert answer is not grpc.aio.EOF, seen
        seen += answer.data
    return seen


async def finish(call: Any) -> tuple[bytes, pb.JournalEntry]:
    """The rest of an exec's output, and its end."""
    written = bytearray()
    while (answer := await call.read()) is not grpc.aio.EOF:
        written += answer.output.data
        if answer.HasField("exited"):
            return bytes(written), answer.exited
    raise AssertionError(f"no end: {bytes(written)!r}")


async def descriptors(executor: ExecutorProcess, at_most: int) -> int:
    """Of the executor, as soon as there are few enough."""
    count = len(os.listdir(f"/proc/{executor.pid}/fd"))  # noqa: PTH208 - names only
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE):
            while at_most and count > at_most:
                await asyncio.sleep(0.05)
                count = len(os.listdir(f"/proc/{executor.pid}/fd"))  # noqa: PTH208 - names only
    return count


async def test_attach_before_the_start_misses_nothing_and_input_is_shared(executor: ExecutorProcess) -> None:
    spec = executor.spec("sh", "-c", "echo first; cat; echo end >&2; exit 3")
    spec.open_stdin = spec.stdin_once = True
    box = await executor.create(spec=spec)
    calls: list[Any] = [executor.runtime.AttachContainer(timeout=DEADLINE) for _ in range(2)]
    for call, stdin in zip(calls, (True, False), strict=True):
        await call.write(attach_request(box, stdin=stdin))
        assert (await call.read()).data == b""
    await executor.run(box)
    for call in calls:
        await read_until(call, b"first\n")
    await calls[0].write(pb.AttachContainerRequest(stdin=b"x" * 100_000 + b"!\n"))
    for call in calls:
        assert len(await read_until(call, b"!\n")) == 100_002
    await calls[0].write(pb.AttachContainerRequest(close_stdin=True))
    for call in calls:
        assert await read_until(call, b"end\n") == b"end\n"
        assert (await call.read()).ended
        assert await call.read() is grpc.aio.EOF
    assert (await executor.exited(box)).exited.exit_code == 3


async def test_a_terminal_is_resized_and_survives_its_clients(executor: ExecutorProcess) -> None:
    spec = executor.spec("sh", "-c", 'stty size; while read -r line; do echo "<$line>"; stty size; done')
    spec.open_stdin = spec.terminal = True
    spec.terminal_size.height, spec.terminal_size.width = 20, 30
    box = await executor.create(spec=spec)
    first = executor.runtime.AttachContainer(timeout=DEADLINE)
    await first.write(attach_request(box))
    await first.read()
    await executor.run(box)
    await read_until(first, b"20 30\r\n")
    for width in (31, 32, 33):
        request = pb.ResizeTerminalRequest(container_id=box)
        request.size.height, request.size.width = 40, width
        await executor.runtime.ResizeTerminal(request, timeout=DEADLINE)
    await first.write(pb.AttachContainerRequest(stdin=b"one\n"))
    await read_until(first, b"40 33\r\n")
    first.cancel()
    second = executor.runtime.AttachContainer(timeout=DEADLINE)
    await second.write(attach_request(box))
    await second.read()
    await second.write(pb.AttachContainerRequest(stdin=b"two\n"))
    await read_until(second, b"<two>\r\n40 33\r\n")
    second.cancel()


async def test_a_slow_client_is_dropped_and_the_container_goes_on(executor: ExecutorProcess) -> None:
    # Each burst waits until the quick one has got it.
    flood = "for i in $(seq 20); do yes 0123456789abcdef | head -n 50000; read -r _; done; echo over; sleep 60"
    spec = executor.spec("sh", "-c", flood)
    spec.open_stdin = True
    box = await executor.create(spec=spec)
    calls: list[Any] = [executor.runtime.AttachContainer(timeout=DEADLINE) for _ in range(2)]
    slow, quick = calls
    for call in (slow, quick):
        await call.write(attach_request(box))
        await call.read()
    await executor.run(box)
    size, last = 0, b""
    while last[-5:] != b"over\n":
        last = (await quick.read()).data
        before, size = size // 850_000, size + len(last)
        if size // 850_000 > before:
            await quick.write(pb.AttachContainerRequest(stdin=b"\n"))
    assert size == 17_000_005
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        while await slow.read() is not grpc.aio.EOF:
            pass
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    quick.cancel()


async def test_an_exec_with_input_and_its_end_in_the_journal(executor: ExecutorProcess) -> None:
    box = await executor.create("sleep", "1000")
    await executor.run(box)
    call: Any = executor.runtime.Exec(timeout=DEADLINE)
    request = exec_request(box, "sh", "-c", "wc -c; exit 5", stdin=True)
    await call.write(request)
    assert (await call.read()).started.pid > 0
    await call.write(pb.ExecRequest(stdin=b"x" * 1_000_000))
    await call.write(pb.ExecRequest(close_stdin=True))
    written, end = await finish(call)
    assert (written, end.exec_exited.exit_code) == (b"1000000\n", 5)
    assert end in await executor.entries(box)
    for args, code in (("nothere", grpc.StatusCode.INVALID_ARGUMENT), ("/etc", grpc.StatusCode.INVALID_ARGUMENT)):
        failing = executor.runtime.Exec(timeout=DEADLINE)
        await failing.write(exec_request(box, args))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await failing.read()
        assert raised.value.code() is code
    # The container's end is the end of what runs in it.
    call = executor.runtime.Exec(timeout=DEADLINE)
    await call.write(exec_request(box, "sleep", "1000"))
    await call.read()
    await executor.signal(box, 9)
    assert (await finish(call))[1].exec_exited.exit_code == 137


async def test_vanished_clients_leave_nothing(executor: ExecutorProcess) -> None:
    box = await executor.create("sleep", "1000")
    await executor.run(box)
    before = await descriptors(executor, 0)
    for _ in range(25):
        calls: list[Any] = []
        for number in range(10):
            if number < 2:
                call: Any = executor.runtime.Exec()
                await call.write(exec_request(box, *(("yes",) if number else ("sleep", "1000")), stdin=True))
            else:
                call = executor.runtime.AttachContainer()
                await call.write(attach_request(box))
            calls.append(call)
        await asyncio.gather(*(call.read() for call in calls))
        for call in calls:
            call.cancel()
    assert await descriptors(executor, before) <= before
    ended = 0
    async for answer in executor.runtime.FollowJournal(pb.FollowJournalRequest(), timeout=DEADLINE):
        ended += answer.entry.container_id == box and answer.entry.HasField("exec_exited")
        if ended == 50:
            break
    listed = await executor.runtime.ListProcesses(pb.ListProcessesRequest(container_id=box), timeout=DEADLINE)
    assert [list(process.command) for process in listed.processes] == [["sleep", "1000"]]


async def test_execs_of_an_executor_that_was_killed(executor: ExecutorProcess) -> None:
    box = await executor.create("sleep", "1000")
    await executor.run(box)
    stays = exec_request(box, "sh", "-c", "until [ -e /go ]; do sleep 0.02; done", detach=True)
    goes = exec_request(box, "sleep", "500")
    for request in (stays, goes):
        call = executor.runtime.Exec()
        await call.write(request)
        await call.read()
    shown = await executor.snapshot(box)
    assert shown is not None
    assert sorted(shown.exec_ids) == sorted(each.exec.id for each in (stays, goes))
    await executor.kill()
    await executor.start()
    shown = await executor.snapshot(box)
    assert shown is not None
    assert stays.exec.id in shown.exec_ids
    found: dict[str, pb.ExecExited] = {}
    async for answer in executor.runtime.FollowJournal(pb.FollowJournalRequest(), timeout=DEADLINE):
        if answer.entry.HasField("exec_exited"):
            found[answer.entry.exec_exited.exec_id] = answer.entry.exec_exited
            if answer.entry.exec_exited.exec_id == goes.exec.id:
                assert stays.exec.id not in found  # it was detached, and lives on
                call = executor.runtime.Exec()
                await call.write(exec_request(box, "touch", "/go"))
        if {stays.exec.id, goes.exec.id} <= set(found):
            break
    for request in (stays, goes):
        assert not found[request.exec.id].HasField("exit_code")
        assert "stopped or killed" in found[request.exec.id].error
    assert (await executor.snapshot(box)).phase == pb.CONTAINER_PHASE_RUNNING  # type: ignore[union-attr]
