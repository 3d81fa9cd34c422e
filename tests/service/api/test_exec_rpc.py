"""ExecService: what is refused and how, what an exec leaves in the records and events, and what clients leave."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as container_service
from slipway.v1 import exec_service_pb2 as pb2
from slipway.v1 import exec_service_pb2_grpc as pb2_grpc
from slipway.v1 import system_service_pb2 as system_pb2

from api_service.records.exec_repository import MAX_EXECS
from common.errors import InvalidArgument, StartFailed, Unavailable
from tests.fixtures.api import PATIENCE, Api, Refusal, refusal, refused, stream_refused

ENDED = 5 * 60.0  # seconds that an exec is kept after its end


@pytest.fixture
def execs(api: Api) -> pb2_grpc.ExecServiceStub:
    return pb2_grpc.ExecServiceStub(api.channel)


@pytest.fixture
async def box(api: Api) -> str:
    return await api.run(name="box")


async def create(execs: pb2_grpc.ExecServiceStub, container: str = "box", *cmd: str, **config: Any) -> str:
    given = {"attach_stdin": True, "attach_stdout": True, "attach_stderr": True, **config}
    request = pb2.CreateExecRequest(container=container, config=pb2.ExecConfig(cmd=cmd or ("sh",), **given))
    return (await execs.CreateExec(request, timeout=PATIENCE)).id


async def begin(execs: pb2_grpc.ExecServiceStub, exec_id: str, *messages: pb2.StartExecRequest, **target: Any) -> Any:
    call: Any = execs.StartExec(timeout=PATIENCE)
    await call.write(pb2.StartExecRequest(start=pb2.ExecTarget(exec=exec_id, **target)))
    for message in messages:
        await call.write(message)
    answer = await call.read()
    assert answer.begin.id == exec_id
    assert answer.begin.pid > 0
    return call


async def end_of(call: Any) -> pb2.ExecEnd:
    while (answer := await call.read()) is not grpc.aio.EOF:
        if answer.HasField("end"):
            end: pb2.ExecEnd = answer.end
            return end
    raise AssertionError("no end")


async def start_refused(execs: pb2_grpc.ExecServiceStub, *messages: pb2.StartExecRequest) -> Refusal:
    return await stream_refused(execs.StartExec, *messages)


def start(exec_id: str, **target: Any) -> pb2.StartExecRequest:
    return pb2.StartExecRequest(start=pb2.ExecTarget(exec=exec_id, **target))


def size(height: int, width: int) -> container_pb2.ConsoleSize:
    return container_pb2.ConsoleSize(height=height, width=width)


async def show(execs: pb2_grpc.ExecServiceStub, exec_id: str) -> pb2.Exec:
    return (await execs.InspectExec(pb2.InspectExecRequest(exec=exec_id), timeout=PATIENCE)).exec


async def exec_events(api: Api) -> list[system_pb2.Event]:
    until = Timestamp()
    until.FromNanoseconds(api.engine.clock())
    request = system_pb2.StreamEventsRequest(since=Timestamp(), until=until)
    call = api.system.StreamEvents(request, timeout=PATIENCE)
    return [each.event async for each in call if each.event.action.startswith("exec_")]


async def until(condition: Any) -> None:
    """What happens in another task of this process has no event to wait for."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_an_exec_from_its_creation_to_its_end(api: Api, execs: pb2_grpc.ExecServiceStub, box: str) -> None:
    exec_id = await create(execs, "box", "echo", "hi", tty=True, user="7", env=["A=1"], console_size=size(3, 4))
    shown = await show(execs, exec_id[:12])
    assert (shown.id, shown.container_id, shown.running, shown.pid) == (exec_id, box, False, 0)
    assert not shown.HasField("started_at")
    assert list((await api.inspect("box")).exec_ids) == [exec_id]
    call = await begin(execs, exec_id)
    spec = api.executor.execs[0]
    assert (spec.id, spec.user, spec.terminal, spec.stdin, spec.detach) == (exec_id, "7", True, True, False)
    assert (spec.terminal_size.height, spec.terminal_size.width) == (3, 4)
    assert "A=1" in spec.env
    shown = await show(execs, exec_id)
    assert (shown.running, shown.pid, shown.HasField("exit_code")) == (True, 5001, False)
    await call.write(pb2.StartExecRequest(stdin=b"typed"))
    assert (await call.read()).output.data == b"typed"
    await call.write(pb2.StartExecRequest(close_stdin=True))
    assert (await end_of(call)).exit_code == 0
    shown = await show(execs, exec_id)
    assert (shown.running, shown.pid, shown.exit_code) == (False, 0, 0)
    assert shown.created_at.ToNanoseconds() <= shown.started_at.ToNanoseconds() <= shown.finished_at.ToNanoseconds()
    assert list((await api.inspect("box")).exec_ids) == []
    told = await exec_events(api)
    assert [event.action for event in told] == ["exec_create: echo hi", "exec_start: echo hi", "exec_die"]
    assert {event.attributes["execID"] for event in told} == {exec_id}
    assert told[2].attributes["exitCode"] == "0"


async def test_everything_wrong_with_a_create_is_said_at_once(execs: pb2_grpc.ExecServiceStub, box: str) -> None:
    config = pb2.ExecConfig(
        working_dir="relative", user="a:b:c", detach_keys="ctrl-1", console_size=size(1, 2), env=["A=1"]
    )
    said = await refused(execs.CreateExec(pb2.CreateExecRequest(container="box", config=config)))
    assert said.code is grpc.StatusCode.INVALID_ARGUMENT
    assert said.violations["config.cmd"] == "no command: name the program to run"
    assert said.violations["config.working_dir"] == "'relative' is not absolute; begin it with '/'"
    assert said.violations["config.detach_keys"].startswith("'ctrl-1' is not a sequence of keys")
    assert said.violations["config.console_size"] == "needs `config.tty`: it is a terminal's"
    assert set(said.violations) == {
        f"config.{f}" for f in ("cmd", "working_dir", "user", "detach_keys", "console_size")
    }
    for config, field in (
        (pb2.ExecConfig(cmd=["a\0b"]), "config.cmd[0]"),
        (pb2.ExecConfig(cmd=["a"], env=["=b"]), "config.env[0]"),
        (pb2.ExecConfig(cmd=["a"], tty=True, console_size=size(65536, 1)), "config.console_size.height"),
    ):
        said = await refused(execs.CreateExec(pb2.CreateExecRequest(container="box", config=config)))
        assert set(said.violations) == {field}


async def test_states_in_which_nothing_is_run(api: Api, execs: pb2_grpc.ExecServiceStub, box: str) -> None:
    made = await create(execs)
    await api.create(name="still")
    again = await api.run(name="again", restart_policy=container_pb2.RestartPolicy(name="always"))
    api.executor.exit(again, 1, restart_in=1000)
    await api.followed()
    await api.containers.PauseContainer(container_service.PauseContainerRequest(container="box"))
    for name, why, reason in (
        ("still", "is not running (its state is created), so there is nothing to run a program in", "NOT_RUNNING"),
        ("again", "is restarting, wait until it runs", "RESTARTING"),
        ("box", "is paused, unpause it before exec", "PAUSED"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await create(execs, name)
        said = refusal(raised.value)
        assert (said.code, said.reason) == (grpc.StatusCode.FAILED_PRECONDITION, f"CONTAINER_{reason}")
        assert said.message == f"container {name!r}: {why}"
    said = await start_refused(execs, start(made))
    assert (said.code, said.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONTAINER_PAUSED")
    await api.containers.UnpauseContainer(container_service.UnpauseContainerRequest(container="box"))
    await end_of(await begin(execs, made, pb2.StartExecRequest(close_stdin=True)))  # it was not used up
    for wrong in (create(execs, "nobody"), show(execs, "f" * 64), begin(execs, "f" * 64)):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await wrong
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    said = await refused(show(execs, "f" * 64))
    assert said.message == f"No such exec: {'f' * 64}; it may have been forgotten, five minutes after its end"
    assert said.reason == "EXEC_NOT_FOUND"


async def test_a_start_is_the_only_one(api: Api, execs: pb2_grpc.ExecServiceStub, box: str) -> None:
    exec_id = await create(execs)
    gate = asyncio.Event()
    waiting = api.executor.fault("Exec", gate=gate)
    first = asyncio.create_task(begin(execs, exec_id))
    await waiting.reached.wait()
    said = await start_refused(execs, start(exec_id))
    assert said.message == f"exec {exec_id[:12]}: it is being started"
    gate.set()
    call = await first
    said = await start_refused(execs, start(exec_id))
    assert said.message == f"exec {exec_id[:12]}: it is running already"
    assert (said.code, said.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "EXEC_STARTED")
    await call.done_writing()
    await end_of(call)
    said = await start_refused(execs, start(exec_id))
    assert said.message == f"exec {exec_id[:12]}: it has already run; create another one"
    assert len(api.executor.execs) == 1


async def test_messages_that_are_none_end_the_call_with_a_reason(
    api: Api, execs: pb2_grpc.ExecServiceStub, box: str
) -> None:
    for messages, field in (
        ([pb2.StartExecRequest(stdin=b"x")], "start"),
        ([pb2.StartExecRequest()], "request"),
        ([start("")], "start.exec"),
        ([start(await create(execs), console_size=size(1, 1))], "start.console_size"),
    ):
        said = await start_refused(execs, *messages)
        assert (said.code, list(said.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, [field])
    assert api.executor.execs == []
    for message, field in (
        (pb2.StartExecRequest(resize=size(70_000, 1)), "resize.height"),
        (pb2.StartExecRequest(stdin=b"x" * 1_100_000), "stdin"),
        (start("a"), "start"),
        (pb2.StartExecRequest(), "request"),
    ):
        call = await begin(execs, await create(execs, tty=True), message)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await end_of(call)
        assert list(refusal(raised.value).violations) == [field]


async def test_a_program_that_cannot_be_run(api: Api, execs: pb2_grpc.ExecServiceStub, box: str) -> None:
    unknown = InvalidArgument("exec.user: nobody is called that", violations=[])
    for error, code, status in (
        (StartFailed("sh: not found", exit_code=127), 127, grpc.StatusCode.INVALID_ARGUMENT),
        (StartFailed("sh: permission denied", exit_code=126), 126, grpc.StatusCode.INVALID_ARGUMENT),
        (unknown, 126, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        exec_id = await create(execs)
        api.executor.fault("Exec", error=error)
        said = await start_refused(execs, start(exec_id))
        assert (said.code, said.message) == (status, error.message)
        shown = await show(execs, exec_id)
        assert (shown.running, shown.exit_code, shown.error) == (False, code, error.message)


async def test_what_a_refusal_leaves_is_nothing_that_still_waits(
    api: Api, execs: pb2_grpc.ExecServiceStub, box: str
) -> None:
    """A generator that nobody holds and that still runs cannot be closed: the collector says so to the loop, whenever
    it comes."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    for _ in range(3):
        exec_id = await create(execs)
        api.executor.fault("Exec", error=StartFailed("sh: not found", exit_code=127))
        assert (await start_refused(execs, start(exec_id))).code is grpc.StatusCode.INVALID_ARGUMENT
        for _ in range(2):
            gc.collect()
            await show(execs, exec_id)  # the loop turns: what was closed has been told
    assert told == []


async def test_detached_from_the_beginning_and_by_keys(api: Api, execs: pb2_grpc.ExecServiceStub, box: str) -> None:
    first = await create(execs)
    end = await end_of(await begin(execs, first, detach=True))
    assert (end.detached, end.HasField("exit_code")) == (True, False)
    assert (api.executor.execs[0].detach, api.executor.execs[0].stdin) == (True, False)
    second = await create(execs, tty=True, detach_keys="a,b")
    call = await begin(execs, second, *(pb2.StartExecRequest(stdin=text) for text in (b"xa", b"b")))
    assert (await end_of(call)).detached
    third = await create(execs, detach_keys="a")
    call = await begin(execs, third, pb2.StartExecRequest(stdin=b"a"))
    assert (await call.read()).output.data == b"a"  # keys are a terminal's
    for exec_id in (first, second):
        assert (await show(execs, exec_id)).running
    assert sorted((await api.inspect("box")).exec_ids) == sorted([first, second, third])
    api.executor.end_exec(api.executor.containers[box], first, 9)
    await api.followed()
    shown = await show(execs, first)
    assert (shown.running, shown.exit_code) == (False, 9)
    assert [each for each in await api.actions() if "exec_d" in each] == ["container exec_detach", "container exec_die"]
    call.cancel()


async def test_sizes_go_with_what_is_typed_also_before_the_begin(
    api: Api, execs: pb2_grpc.ExecServiceStub, box: str
) -> None:
    exec_id = await create(execs, tty=True)
    gate = asyncio.Event()
    waiting = api.executor.fault("Exec", gate=gate)
    messages = [pb2.StartExecRequest(resize=size(10, each)) for each in (20, 30)]
    beginning = asyncio.create_task(begin(execs, exec_id, *messages, pb2.StartExecRequest(stdin=b"typed")))
    await waiting.reached.wait()
    gate.set()
    call = await beginning
    assert (await call.read()).output.data == b"typed"
    assert api.executor.sizes == [(exec_id, 10, 20), (exec_id, 10, 30)]
    await execs.ResizeExecTty(pb2.ResizeExecTtyRequest(exec=exec_id[:12], size=size(1, 2)))
    assert api.executor.sizes[-1] == (exec_id, 1, 2)
    call.cancel()


async def test_a_resize_that_cannot_be(execs: pb2_grpc.ExecServiceStub, box: str) -> None:
    without, unstarted = await create(execs), await create(execs, tty=True)
    for exec_id, sentence, reason in (
        (without, "it has no terminal; create it with `tty`", "NO_TERMINAL"),
        (unstarted, "it does not run", "EXEC_NOT_RUNNING"),
    ):
        said = await refused(execs.ResizeExecTty(pb2.ResizeExecTtyRequest(exec=exec_id, size=size(1, 2))))
        assert (said.message, said.reason) == (f"exec {exec_id[:12]}: {sentence}", reason)
    said = await refused(execs.ResizeExecTty(pb2.ResizeExecTtyRequest(exec=unstarted, size=size(1, 65536))))
    assert list(said.violations) == ["size.width"]


async def test_clients_that_vanish_leave_nothing(api: Api, execs: pb2_grpc.ExecServiceStub, box: str) -> None:
    before = len(asyncio.all_tasks())
    gate = asyncio.Event()
    unanswered = []
    for number in range(6):
        exec_id = await create(execs, tty=True)
        if number % 2:
            call = await begin(execs, exec_id, pb2.StartExecRequest(stdin=b"x"))
        else:
            unanswered.append(exec_id)
            waiting = api.executor.fault("ExecAnswer", gate=gate)
            call = execs.StartExec()
            await call.write(start(exec_id))
            await waiting.reached.wait()
        call.cancel()

    async def nobody_talks() -> bool:
        return api.executor.talking == 0

    async def nothing_left() -> bool:
        return not api.engine.starting_execs and len(asyncio.all_tasks()) <= before

    await until(nobody_talks)
    # The node may run them, whether or not somebody waits for its answer.
    assert {(await show(execs, exec_id)).running for exec_id in unanswered} == {True}
    gate.set()
    await until(nothing_left)
    for exec_id in unanswered:
        api.executor.end_exec(api.executor.containers[box], exec_id, 143)
    await api.followed()
    for spec in api.executor.execs:
        shown = await show(execs, spec.id)
        assert not shown.running
        # Its client's end may be the end of its input before it is that of the call.
        assert shown.exit_code in ((143, 0) if spec.id in unanswered else (0,))


async def test_a_lost_answer_is_asked_for(api: Api, execs: pb2_grpc.ExecServiceStub, box: str) -> None:
    runs, never = await create(execs), await create(execs)
    cut = Unavailable("the connection broke")
    api.executor.fault("ExecAnswer", error=cut)
    said = await start_refused(execs, start(runs, detach=True))
    assert said.code is grpc.StatusCode.UNAVAILABLE
    assert (await show(execs, runs)).running
    api.executor.fault("Exec", error=cut)
    assert (await start_refused(execs, start(never))).code is grpc.StatusCode.UNAVAILABLE

    async def can_be_started() -> bool:
        return not (await show(execs, never)).HasField("started_at")

    await until(can_be_started)
    assert (await show(execs, runs)).running
    await end_of(await begin(execs, never, pb2.StartExecRequest(close_stdin=True)))
    api.executor.end_exec(api.executor.containers[box], runs, 3)
    await api.followed()
    assert (await show(execs, runs)).exit_code == 3


async def test_what_a_killed_service_left_is_settled_when_the_node_answers(
    api: Api, execs: pb2_grpc.ExecServiceStub, box: str
) -> None:
    never, lost, runs = [await create(execs) for _ in range(3)]
    await end_of(await begin(execs, runs, detach=True))
    # Taken and not asked for; said to run, by a node that has forgotten it.
    now = api.engine.clock()
    await api.engine.execs.update(never, lambda found: dataclasses.replace(found, started_at=now))
    await api.engine.execs.update(lost, lambda found: dataclasses.replace(found, started_at=now, pid=77))
    await api.executor.down()
    await api.executor.up()

    async def settled() -> bool:
        return not (await show(execs, lost)).running and not (await show(execs, never)).HasField("started_at")

    await until(settled)
    shown = await show(execs, lost)
    assert (shown.HasField("exit_code"), shown.error) == (False, "the node no longer knows how it ended")
    assert (await show(execs, runs)).running
    await end_of(await begin(execs, never, pb2.StartExecRequest(close_stdin=True)))


async def test_execs_are_forgotten_in_time(
    api: Api, execs: pb2_grpc.ExecServiceStub, box: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, unstarted, running = [await create(execs) for _ in range(3)]
    await end_of(await begin(execs, ended, pb2.StartExecRequest(close_stdin=True)))
    await end_of(await begin(execs, running, detach=True))
    for past, kept in (
        (0, {ended, unstarted, running}),
        (ENDED, {ended, unstarted, running}),
        (ENDED + 1, {unstarted, running}),
        (11 * ENDED, {unstarted, running}),
        (13 * ENDED, {running}),
    ):
        monkeypatch.setattr(api.engine.execs, "_elapsed", lambda past=past: 1000.0 + past)
        await api.engine.execs.forget_old()
        assert {each.id for each in await api.engine.execs.of(box)} == kept
        assert await api.engine.execs.count(box) == len(kept)
    api.executor.exit(box)
    await api.followed()
    await api.remove("box")
    assert (await refused(show(execs, running))).reason == "EXEC_NOT_FOUND"
    assert await api.engine.execs.count(box) == 0


async def test_a_container_has_no_more_execs_than_can_be_kept(
    api: Api, execs: pb2_grpc.ExecServiceStub, box: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.operations.exec_create.MAX_EXECS", 2)
    assert MAX_EXECS == 1000
    for _ in range(2):
        await create(execs)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await create(execs)
    said = refusal(raised.value)
    assert (said.code, said.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_EXECS")
    assert "container 'box': 2 execs are kept already; they are forgotten" in said.message
