"""Random verbs against a model of the state machine: whatever came before, the table holds, record and node agree."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2

from tests.fixtures.api import Api, running_api
from tests.fixtures.fake_executor import FakeExecutor

NAME = "web"
# What each verb makes of each state; a state without an entry refuses it. Left out: the state stays.
RUNS, FROZEN, WAITS, ENDED, NEW = "running", "paused", "restarting", "exited", "created"
AFTER: dict[str, dict[str, str]] = {
    "start": {NEW: RUNS, RUNS: RUNS, WAITS: RUNS, ENDED: RUNS},
    "stop": {NEW: NEW, RUNS: ENDED, FROZEN: ENDED, WAITS: ENDED, ENDED: ENDED},
    "kill": {RUNS: ENDED, FROZEN: ENDED, WAITS: ENDED},
    "restart": {NEW: RUNS, RUNS: RUNS, FROZEN: RUNS, WAITS: RUNS, ENDED: RUNS},
    "pause": {RUNS: FROZEN},
    "unpause": {FROZEN: RUNS},
    "update": {NEW: NEW, RUNS: RUNS, FROZEN: FROZEN, WAITS: WAITS, ENDED: ENDED},
}
# What happens on the node by itself, where it can.
BY_ITSELF: dict[str, dict[str, str]] = {
    "ends": {RUNS: ENDED},
    "ends for now": {RUNS: WAITS},
    "is started again": {WAITS: RUNS},
    "fails to start again": {WAITS: WAITS},
    "journal lost": {state: state for state in (NEW, RUNS, FROZEN, WAITS, ENDED)},
}
STEPS = st.lists(st.sampled_from([*AFTER, *BY_ITSELF]), min_size=1, max_size=25)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_walk(steps: list[str]) -> None:
    asyncio.run(_walk(steps))


async def _walk(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="slw-") as name:
        directory = Path(name)
        async with (
            FakeExecutor(directory / "executor.sock").serving() as executor,
            running_api(directory, executor) as api,
        ):
            await api.load()
            container_id = await api.create(name=NAME)
            state = NEW
            for step in steps:
                if step in AFTER:
                    state = await _verb(api, step, state)
                elif state in BY_ITSELF[step]:
                    await _by_itself(api, container_id, step)
                    state = BY_ITSELF[step][state]
                shown = (await api.inspect(NAME)).state
                assert container_pb2.ContainerStatus.Name(shown.status) == f"CONTAINER_STATUS_{state.upper()}", steps
                assert shown.running is (state in (RUNS, FROZEN, WAITS))
                assert (shown.pid > 0) is (state in (RUNS, FROZEN))
                assert executor.containers[container_id].running is (state in (RUNS, FROZEN))
                assert executor.containers[container_id].restarting is (state == WAITS)


async def _verb(api: Api, verb: str, state: str) -> str:
    stub = api.containers
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "start": lambda: stub.StartContainer(pb2.StartContainerRequest(container=NAME)),
        "stop": lambda: stub.StopContainer(pb2.StopContainerRequest(container=NAME)),
        "kill": lambda: stub.KillContainer(pb2.KillContainerRequest(container=NAME)),
        "restart": lambda: stub.RestartContainer(pb2.RestartContainerRequest(container=NAME)),
        "pause": lambda: stub.PauseContainer(pb2.PauseContainerRequest(container=NAME)),
        "unpause": lambda: stub.UnpauseContainer(pb2.UnpauseContainerRequest(container=NAME)),
        "update": lambda: stub.UpdateContainer(pb2.UpdateContainerRequest(container=NAME)),
    }
    try:
        await calls[verb]()
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, (verb, state, error.details())
        assert state not in AFTER[verb], (verb, state, error.details())
        return state
    assert state in AFTER[verb], (verb, state)
    return AFTER[verb][state]


async def _by_itself(api: Api, container_id: str, step: str) -> None:
    executor = api.executor
    match step:
        case "ends":
            executor.exit(container_id, 1)
        case "ends for now":
            executor.exit(container_id, 1, restart_in=60)
        case "is started again":
            executor.restart(container_id)
        case "fails to start again":
            executor.restart(container_id, fails=True)
        case "journal lost":
            await executor.down()
            executor.new_journal()
            await executor.up()
            follower = api.engine.nodes.get("local").follower
            async with asyncio.timeout(10):
                while not (follower.connected and follower.journal_id == executor.journal_id):
                    await follower.changed()
    await api.followed()
