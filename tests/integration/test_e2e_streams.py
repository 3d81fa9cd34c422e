"""Exec, attach and terminals through both services."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import exec_service_pb2 as exec_pb

from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE = 60.0  # seconds


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(engine: Slipway) -> str:
    return await engine.run("sleep", "1000", config={"env": ["FROM=container"], "working_dir": "/tmp"})


async def create(engine: Slipway, box: str, *cmd: str, **config: Any) -> str:
    given = {"attach_stdout": True, "attach_stderr": True, **config}
    request = exec_pb.CreateExecRequest(container=box, config=exec_pb.ExecConfig(cmd=cmd, **given))
    return (await engine.execs.CreateExec(request, timeout=DEADLINE)).id


async def begin(engine: Slipway, exec_id: str, **target: Any) -> Any:
    call = engine.execs.StartExec(timeout=DEADLINE)
    await call.write(exec_pb.StartExecRequest(start=exec_pb.ExecTarget(exec=exec_id, **target)))
    answer: Any = await call.read()
    assert (answer.begin.id, answer.begin.pid > 0) == (exec_id, True)
    return call


async def finish(call: Any) -> tuple[bytes, Any]:
    written = bytearray()
    while (answer := await call.read()) is not grpc.aio.EOF:
        if answer.HasField("end"):
            return bytes(written), answer.end
        written += answer.output.data
    raise AssertionError(f"no end: {bytes(written)!r}")


async def run(engine: Slipway, box: str, *cmd: str, **config: Any) -> tuple[bytes, int]:
    written, end = await finish(await begin(engine, await create(engine, box, *cmd, **config)))
    return written, end.exit_code


async def read_until(call: Any, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        answer = await call.read()
        assert answer is not grpc.aio.EOF, seen
        seen += answer.output.data
    return seen


async def inspect(engine: Slipway, exec_id: str) -> exec_pb.Exec:
    return (await engine.execs.InspectExec(exec_pb.InspectExecRequest(exec=exec_id), timeout=DEADLINE)).exec


async def attach(engine: Slipway, box: str, **target: Any) -> Any:
    call = engine.containers.AttachContainer(timeout=DEADLINE)
    await call.write(pb.AttachContainerRequest(attach=pb.AttachTarget(container=box, **target)))
    answer: Any = await call.read()
    assert answer.HasField("begin")
    return call


async def test_a_program_gets_what_was_asked_for_over_what_the_container_has(engine: Slipway, box: str) -> None:
    assert await run(engine, box, "sh", "-c", "echo $FROM $MORE; pwd; id -u; exit 3", env=["MORE=exec"]) == (
        b"container exec\n/tmp\n0\n",
        3,
    )
    script = "echo ${FROM:-none}; pwd; id -u"
    assert await run(engine, box, "sh", "-c", script, env=["FROM"], working_dir="/bin", user="77") == (
        b"none\n/bin\n77\n",
        0,
    )
    bounding = await run(engine, box, "grep", "CapEff", "/proc/self/status")
    everything = await run(engine, box, "grep", "CapEff", "/proc/self/status", privileged=True)
    assert int(bounding[0].split()[1], 16) == 0xA80425FB
    assert int(everything[0].split()[1], 16) & ~0xA80425FB
    assert await run(engine, box, "sh", "-c", "echo out; echo err >&2", attach_stderr=False) == (b"out\n", 0)


async def test_input_ends_with_a_half_close(engine: Slipway, box: str) -> None:
    call = await begin(engine, await create(engine, box, "cat", attach_stdin=True))
    for _ in range(8):
        await call.write(exec_pb.StartExecRequest(stdin=b"x" * 500_000))
    await call.done_writing()
    written, end = await finish(call)
    assert (len(written), end.exit_code) == (4_000_000, 0)


async def test_an_exec_runs_once_and_its_record_says_how(engine: Slipway, box: str) -> None:
    exec_id = await create(engine, box, "sh", "-c", "exit 9")
    assert not (await inspect(engine, exec_id)).HasField("started_at")
    await finish(await begin(engine, exec_id))
    shown = await inspect(engine, exec_id[:20])
    assert (shown.running, shown.pid, shown.exit_code, shown.container_id) == (False, 0, 9, box)
    assert shown.started_at.ToNanoseconds() <= shown.finished_at.ToNanoseconds()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await begin(engine, exec_id)
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    for command, code in (("nothere", 127), ("/etc/passwd", 126)):
        exec_id = await create(engine, box, command)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await begin(engine, exec_id)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        shown = await inspect(engine, exec_id)
        assert (shown.running, shown.exit_code, command in shown.error) == (False, code, True)


async def test_a_detached_exec_goes_on_and_is_journaled(engine: Slipway, box: str) -> None:
    exec_id = await create(engine, box, "sh", "-c", "until [ -e /tmp/go ]; do sleep 0.02; done; exit 4")
    _, end = await finish(await begin(engine, exec_id, detach=True))
    assert (end.detached, end.HasField("exit_code")) == (True, False)
    assert (await inspect(engine, exec_id)).running
    await run(engine, box, "touch", "/tmp/go")
    async with asyncio.timeout(DEADLINE):
        while (shown := await inspect(engine, exec_id)).running:
            await asyncio.sleep(0.02)
    assert shown.exit_code == 4


async def test_a_terminal_is_typed_at_resized_left_and_entered_again(engine: Slipway) -> None:
    script = 'stty size; while read -r line; do echo "<$line>"; stty size; done'
    config, size = {"tty": True, "open_stdin": True}, container_pb2.ConsoleSize(height=5, width=6)
    box = await engine.create("sh", "-c", script, config=config, console_size=size)
    first = await attach(engine, box)
    await engine.start(box)
    await read_until(first, b"5 6\r\n")
    await first.write(pb.AttachContainerRequest(resize=container_pb2.ConsoleSize(height=70, width=80)))
    await first.write(pb.AttachContainerRequest(stdin=b"one\n"))
    await read_until(first, b"<one>\r\n70 80\r\n")
    await first.write(pb.AttachContainerRequest(stdin=b"\x10"))
    await first.write(pb.AttachContainerRequest(stdin=b"\x11"))
    answer: Any = await first.read()
    assert answer.end.detached
    second = await attach(engine, box, detach_keys="x,y")
    resize = pb.ResizeContainerTtyRequest(container=box, size=container_pb2.ConsoleSize(height=71, width=81))
    await engine.containers.ResizeContainerTty(resize, timeout=DEADLINE)
    await second.write(pb.AttachContainerRequest(stdin=b"xz\n"))
    await read_until(second, b"<xz>\r\n71 81\r\n")
    await engine.kill(box)
    while not (answer := await second.read()).HasField("end"):
        pass
    assert not answer.end.detached


async def test_a_size_given_between_two_runs_is_that_of_the_next(engine: Slipway) -> None:
    box = await engine.create(
        *("sh", "-c", "stty size; exit 1"),
        config={"tty": True},
        restart_policy=container_pb2.RestartPolicy(name="always"),
    )
    await engine.start(box)
    async with asyncio.timeout(DEADLINE):
        # The delay doubles: from the sixth on it is long enough to come in between.
        while not ((shown := await engine.inspect(box)).state.restarting and shown.restart_count >= 5):
            await asyncio.sleep(0.02)
    call = await attach(engine, box)
    for width in (62, 63):
        await call.write(pb.AttachContainerRequest(resize=container_pb2.ConsoleSize(height=61, width=width)))
    await read_until(call, b"61 63\r\n")
    await engine.remove(box)


async def test_input_typed_before_the_start_arrives(engine: Slipway) -> None:
    box = await engine.create("sh", "-c", "wc -c; echo done >&2", config={"open_stdin": True, "stdin_once": True})
    call = await attach(engine, box)
    await call.write(pb.AttachContainerRequest(stdin=b"x" * 200_000))
    await call.done_writing()
    await engine.start(box)
    await read_until(call, b"done\n")
    assert (await engine.logs(box)).startswith(b"200000\n")


async def test_states_and_words_that_are_refused(engine: Slipway, box: str) -> None:
    stopped = await engine.create("true")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await create(engine, stopped, "true")
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await create(engine, box, working_dir="relative", user="a:b:c", detach_keys="ctrl-é")
    said = raised.value.details() or ""
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for field in ("config.cmd: no command", "config.working_dir", "config.user", "config.detach_keys"):
        assert field in said
