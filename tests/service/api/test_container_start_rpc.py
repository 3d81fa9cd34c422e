"""StartContainer: programs that cannot be started, lost answers, clients that go away, races."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from api_service.deadline import Deadline
from api_service.operations.container_start import start_container, start_id_of
from common.errors import Aborted, Internal
from tests.fixtures.api import Api, refused


@pytest.mark.parametrize(
    ("program", "exit_code", "code", "reason"),
    [
        ("missing", 127, grpc.StatusCode.INVALID_ARGUMENT, "COMMAND_NOT_FOUND"),
        ("denied", 126, grpc.StatusCode.INVALID_ARGUMENT, "COMMAND_NOT_EXECUTABLE"),
        ("broken", 128, grpc.StatusCode.INTERNAL, "START_FAILED"),
        ("unfit", 128, grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_UNFIT"),
    ],
)
async def test_program_that_cannot_be_started(
    api: Api, program: str, exit_code: int, code: grpc.StatusCode, reason: str
) -> None:
    await api.create(program, name="web")
    refusal = await refused(api.start("web"))
    assert (refusal.code, refusal.reason) == (code, reason)
    assert program in refusal.message
    state = (await api.inspect("web")).state
    assert state.status == container_pb2.CONTAINER_STATUS_CREATED
    assert state.exit_code == exit_code
    assert program in state.error
    assert "container start" not in await api.actions()


async def test_start_that_failed_is_tried_anew(api: Api) -> None:
    await api.create("missing", name="web")
    await refused(api.start("web"))
    api.executor.containers[(await api.inspect("web")).id].spec.args[0] = "sleep"
    await api.start("web")
    state = (await api.inspect("web")).state
    assert state.running
    assert not state.HasField("exit_code")
    assert state.error == ""


async def test_failed_start_of_a_container_that_removes_itself(api: Api) -> None:
    container_id = await api.create("missing", auto_remove=True)
    await refused(api.start(container_id))
    await api.gone(container_id)
    assert api.executor.containers == {}


async def test_executor_error_changes_nothing(api: Api) -> None:
    await api.create(name="web")
    api.executor.fault("StartContainer", error=Internal("mount failed"))
    assert (await refused(api.start("web"))).code == grpc.StatusCode.INTERNAL
    assert (await api.inspect("web")).state.status == container_pb2.CONTAINER_STATUS_CREATED
    assert not (await api.start("web")).already_started


async def test_lost_answer_is_asked_for_again(api: Api) -> None:
    await api.create(name="web")
    api.executor.fault("StartContainer", lost=True)
    assert not (await api.start("web")).already_started
    assert (await api.inspect("web")).state.running
    assert (await api.actions(action=["start"])) == ["container start"]


async def test_answer_lost_again_and_again(api: Api) -> None:
    """The client gives up and comes back: one process, one event."""
    await api.create(name="web")
    for _ in range(2):
        api.executor.fault("StartContainer", lost=True)
    assert (await refused(api.start("web"))).retry_after is not None
    await api.start("web")
    assert (await api.inspect("web")).state.running
    assert [entry.WhichOneof("event") for entry in api.executor.journal] == ["started"]
    assert (await api.actions(action=["start"])) == ["container start"]


async def test_retry_before_the_journal_has_told_of_the_first(api: Api) -> None:
    """The key of a start stays the same until an outcome is known, so the node knows the retry for what it is."""
    await api.create(name="web")
    api.executor.paused = True
    for _ in range(2):
        api.executor.fault("StartContainer", lost=True)
    await refused(api.start("web"))
    assert not (await api.inspect("web")).state.running
    await api.start("web")
    assert (await api.inspect("web")).state.running
    assert len(api.executor.journal) == 1


async def test_a_start_that_an_executors_death_cut_short_is_made_by_the_repeat(api: Api) -> None:
    """Its end is told of the attempt before, under the same key."""
    container_id = await api.create(name="web")
    api.executor.paused = True
    key = start_id_of(await api.engine.containers.find("web"))
    api.executor.interrupt(container_id, key)
    await api.start("web")
    assert (await api.inspect("web")).state.running
    assert [entry.WhichOneof("event") for entry in api.executor.journal] == ["start_failed", "started"]
    assert api.executor.journal[1].started.start_id != key


async def test_a_start_cut_short_of_what_removes_itself_is_told_as_such(api: Api) -> None:
    container_id = await api.create(name="web", auto_remove=True)
    api.executor.paused = True
    api.executor.interrupt(container_id, start_id_of(await api.engine.containers.find("web")))
    refusal = await refused(api.start("web"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "START_INTERRUPTED")


async def test_client_that_vanishes_does_not_halve_a_start(api: Api) -> None:
    container_id = await api.create(name="web")
    gate = asyncio.Event()
    fault = api.executor.fault("StartContainer", gate=gate)
    call = api.containers.StartContainer(pb2.StartContainerRequest(container="web"))
    await fault.reached.wait()
    call.cancel()
    gate.set()
    async with asyncio.timeout(60):
        async for record in api.engine.containers.watch(container_id):
            assert record is not None
            if record.state.running:
                break
    assert api.executor.containers[container_id].running


async def test_two_starts_one_process(api: Api) -> None:
    await api.create(name="web")
    answers = await asyncio.gather(*(api.start("web") for _ in range(10)))
    assert sorted(answer.already_started for answer in answers) == [False] + [True] * 9
    assert len(api.executor.journal) == 1


async def test_verb_that_waits_is_told_what_runs(api: Api) -> None:
    await api.create(name="web")
    gate = asyncio.Event()
    fault = api.executor.fault("StartContainer", gate=gate)
    call = api.containers.StartContainer(pb2.StartContainerRequest(container="web"))
    await fault.reached.wait()
    with pytest.raises(Aborted, match=r"cannot start it, a start has been running for \d") as caught:
        await start_container(api.engine, "web", deadline=Deadline.after(0.05))
    assert caught.value.reason == "OPERATION_RUNNING"
    # Reads do not wait.
    assert (await api.inspect("web")).name == "web"
    assert await api.names() == ["web"]
    gate.set()
    await call


async def test_record_is_moved_by_the_answer_when_the_journal_says_nothing(api: Api) -> None:
    """A journal that hangs costs a start its patience, not its outcome; what comes late is told once."""
    first = await api.run(name="one")
    follower = api.engine.nodes.get("local").follower
    api.executor.paused = True
    await api.create(name="web")
    await api.start("web")
    assert (await api.inspect("web")).state.running
    assert not await follower.reached(2, patience=0)
    api.executor.resume()
    await api.followed()
    assert await api.actions(action=["start"]) == ["container start", "container start"]
    assert first != (await api.inspect("web")).id
