"""Stop, kill, restart, remove: signals, order of events, races, and removals that fail or are lost."""

from __future__ import annotations

import asyncio
import signal as signals

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from api_service.deadline import Deadline
from api_service.operations.container_remove import remove_container
from common.errors import Internal
from tests.fixtures.api import Api, refused


def sent(api: Api) -> list[int]:
    return [entry.signaled.signal for entry in api.executor.journal if entry.HasField("signaled")]


async def kill(api: Api, signal: str = "") -> None:
    await api.containers.KillContainer(pb2.KillContainerRequest(container="web", signal=signal))


async def test_stop_signal_then_sigkill(api: Api) -> None:
    await api.run("stubborn", name="web")
    await api.stop("web", timeout=0)
    assert sent(api) == [signals.SIGTERM, signals.SIGKILL]
    assert (await api.inspect("web")).state.exit_code == 137
    assert await api.actions(type=["container"]) == [
        f"container {action}" for action in ("create", "start", "kill", "kill", "die", "stop")
    ]


@pytest.mark.parametrize(("own", "asked", "number"), [("INT", "", 2), ("", "SIGINT", 2), ("INT", "15", 15)])
async def test_which_signal_stops(api: Api, own: str, asked: str, number: int) -> None:
    config = container_pb2.ContainerConfig(image="busybox", cmd=["sleep"], stop_signal=own)
    await api.containers.CreateContainer(pb2.CreateContainerRequest(name="web", config=config))
    await api.start("web")
    await api.stop("web", signal=asked)
    assert sent(api) == [number]


async def test_containers_own_stop_timeout(api: Api) -> None:
    config = container_pb2.ContainerConfig(image="busybox", cmd=["stubborn"], stop_timeout=0)
    await api.containers.CreateContainer(pb2.CreateContainerRequest(name="web", config=config))
    await api.start("web")
    await api.containers.StopContainer(pb2.StopContainerRequest(container="web"), timeout=60)
    assert (await api.inspect("web")).state.exit_code == 137


@pytest.mark.parametrize("verb", ["StopContainer", "KillContainer", "RestartContainer"])
async def test_unknown_signal(api: Api, verb: str) -> None:
    await api.run(name="web")
    message = {"StopContainer": pb2.StopContainerRequest, "KillContainer": pb2.KillContainerRequest}.get(
        verb, pb2.RestartContainerRequest
    )
    refusal = await refused(getattr(api.containers, verb)(message(container="web", signal="SIGNOPE")))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "'SIGNOPE'" in refusal.violations["signal"]
    assert sent(api) == []


async def test_stop_of_what_ended_unseen(api: Api) -> None:
    container_id = await api.run(name="web")
    api.executor.paused = True
    api.executor.exit(container_id, 5)
    assert (await api.stop("web")).already_stopped
    api.executor.resume()
    assert (await api.wait("web")).exit_code == 5


async def test_kill_is_sigkill_and_waits(api: Api) -> None:
    await api.run("stubborn", name="web")
    await kill(api)
    state = (await api.inspect("web")).state
    assert (state.running, state.exit_code) == (False, 137)


async def test_another_signal_is_sent_and_that_is_all(api: Api) -> None:
    await api.run(name="web")
    await kill(api, "HUP")
    await api.followed()
    assert sent(api) == [signals.SIGHUP]
    assert (await api.inspect("web")).state.running
    event = (await api.events(1, action=["kill"]))[0].event
    assert event.attributes["signal"] == "1"


async def test_kill_ends_a_stop_without_end(api: Api) -> None:
    await api.run("stubborn", name="web")
    stop = asyncio.ensure_future(api.stop("web", timeout=-1))
    await api.executor.until(lambda: bool(sent(api)))
    await kill(api)
    assert not (await stop).already_stopped


async def test_restart(api: Api) -> None:
    await api.run(name="web")
    before = (await api.inspect("web")).state
    await api.containers.RestartContainer(pb2.RestartContainerRequest(container="web"))
    after = (await api.inspect("web")).state
    assert after.running
    assert after.pid != before.pid
    assert await api.actions(type=["container", "network"]) == [
        "container create",
        "network connect",
        "container start",
        "container kill",
        "container die",
        "network disconnect",
        "container stop",
        "network connect",
        "container start",
        "container restart",
    ]


async def test_restart_does_not_let_the_container_remove_itself(api: Api) -> None:
    container_id = await api.run(name="web", auto_remove=True)
    await api.containers.RestartContainer(pb2.RestartContainerRequest(container="web"))
    assert (await api.inspect("web")).state.running
    await api.stop("web")
    await api.gone(container_id)
    assert (await api.actions(type=["container"]))[-2:] == ["container stop", "container destroy"]


async def test_end_by_itself(api: Api) -> None:
    container_id = await api.run(name="web")
    api.executor.exit(container_id, None, oom=True, error="the monitor died")
    assert (await api.wait("web")).error == "the monitor died"
    state = (await api.inspect("web")).state
    assert not state.HasField("exit_code")
    assert state.oom_killed
    assert (await api.actions())[-3:] == ["container oom", "container die", "network disconnect"]


async def test_events_carry_what_belongs_to_them(api: Api) -> None:
    config = container_pb2.ContainerConfig(image="busybox", cmd=["sleep"], labels={"team": "a"})
    await api.containers.CreateContainer(pb2.CreateContainerRequest(name="web", config=config))
    await api.start("web")
    container_id = (await api.inspect("web")).id
    api.executor.exit(container_id, 3)
    await api.wait("web")
    die = (await api.events(1, action=["die"], label=["team=a"]))[0].event
    assert die.actor_id == container_id
    assert dict(die.attributes) == {
        "image": "busybox", "name": "web", "team": "a", "exitCode": "3", "execDuration": "0",
    }  # fmt: skip
    connect = (await api.events(1, action=["connect"], container=[container_id]))[0].event
    assert (connect.type, connect.actor_id, connect.attributes["container"]) == ("network", "bridge", container_id)


async def test_auto_remove(api: Api) -> None:
    container_id = await api.run(auto_remove=True)
    waiting = asyncio.ensure_future(api.wait(container_id, pb2.WAIT_CONDITION_REMOVED))
    api.executor.exit(container_id, 7)
    assert (await waiting).exit_code == 7
    assert api.executor.containers == {}
    assert (await api.actions(type=["container"]))[-2:] == ["container die", "container destroy"]


async def test_forced_removal_tells_the_end_first(api: Api) -> None:
    await api.run("stubborn", name="web")
    await api.remove("web", force=True)
    assert (await api.actions(type=["container"]))[-3:] == ["container kill", "container die", "container destroy"]


async def test_forced_removal_ends_a_stop_without_end(api: Api) -> None:
    await api.run("stubborn", name="web")
    stop = asyncio.ensure_future(api.stop("web", timeout=-1))
    await api.executor.until(lambda: bool(sent(api)))
    await api.remove("web", force=True)
    await stop
    assert await api.names() == []


async def test_removals_at_once_share_one_job(api: Api) -> None:
    await api.create(name="web")
    gate = asyncio.Event()
    fault = api.executor.fault("RemoveContainer", gate=gate)
    first = asyncio.ensure_future(api.remove("web"))
    await fault.reached.wait()
    assert (await api.inspect("web")).state.status == container_pb2.CONTAINER_STATUS_REMOVING
    others = [
        asyncio.ensure_future(remove_container(api.engine, "web", force=True, deadline=Deadline.after(60)))
        for _ in range(10)
    ]
    answered = await refused(api.start("web"))
    assert answered.code == grpc.StatusCode.FAILED_PRECONDITION
    gate.set()
    await asyncio.gather(first, *others)
    assert api.executor.calls.count("RemoveContainer") == 1
    assert await api.actions(action=["destroy"]) == ["container destroy"]


async def test_start_and_removal_at_once_have_one_winner(api: Api) -> None:
    for turn in range(20):
        container_id = await api.create(name=f"web-{turn}")
        started, removed = await asyncio.gather(
            api.start(container_id), api.remove(container_id), return_exceptions=True
        )
        codes = [each.code() for each in (started, removed) if isinstance(each, grpc.aio.AioRpcError)]
        assert len(codes) == 1, (started, removed)
        if isinstance(started, Exception):
            assert codes[0] in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
            assert container_id not in api.executor.containers
        else:
            assert codes == [grpc.StatusCode.FAILED_PRECONDITION]
            assert api.executor.containers[container_id].running


async def test_removal_that_fails_leaves_a_dead_container(api: Api) -> None:
    await api.create(name="web")
    api.executor.fault("RemoveContainer", error=Internal("device busy"))
    assert (await refused(api.remove("web"))).code == grpc.StatusCode.INTERNAL
    state = (await api.inspect("web")).state
    assert (state.status, state.dead, state.error) == (container_pb2.CONTAINER_STATUS_DEAD, True, "device busy")
    assert (await refused(api.create(name="web"))).code == grpc.StatusCode.ALREADY_EXISTS
    await api.remove("web")
    assert await api.create(name="web")


async def test_removal_whose_answer_was_lost_is_finished(api: Api) -> None:
    container_id = await api.create(name="web")
    api.executor.fault("RemoveContainer", lost=True)
    assert (await refused(api.remove("web"))).code == grpc.StatusCode.UNAVAILABLE
    assert (await api.inspect("web")).state.status == container_pb2.CONTAINER_STATUS_REMOVING
    await api.executor.down()
    await api.executor.up()
    await api.gone(container_id)


async def test_caller_of_a_removal_may_leave(api: Api) -> None:
    container_id = await api.create(name="web")
    gate = asyncio.Event()
    fault = api.executor.fault("RemoveContainer", gate=gate)
    call = api.containers.RemoveContainer(pb2.RemoveContainerRequest(container="web"))
    await fault.reached.wait()
    call.cancel()
    gate.set()
    await api.gone(container_id)
