"""Journals that no sound executor writes: entries twice, out of order, of another journal, of another node's container.

Whatever comes, an event is told once, and a record is what the node says last.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from slipway.executor.v1 import runtime_service_pb2 as executor_pb2
from slipway.v1 import container_pb2, health_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import exec_service_pb2 as exec_pb2
from structlog.testing import capture_logs

from api_service.conversion.executor.journal import entry_from_proto
from tests.fixtures.api import Api, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor, serving_nodes
from tests.fixtures.shared_store import SharedStore

HEALTHY, UNHEALTHY = executor_pb2.HEALTH_STATUS_HEALTHY, executor_pb2.HEALTH_STATUS_UNHEALTHY


def said(executor: FakeExecutor, entry: executor_pb2.JournalEntry, journal: str = "") -> Any:
    return executor_pb2.FollowJournalResponse(journal_id=journal or executor.journal_id, entry=entry)


async def checked(api: Api) -> str:
    """It runs, and has a health check."""
    config = container_pb2.ContainerConfig(
        image="busybox", cmd=["sleep"], healthcheck=health_pb2.HealthConfig(test=["CMD", "check"])
    )
    made = await api.containers.CreateContainer(pb2.CreateContainerRequest(name="box", config=config))
    await api.start(made.id)
    return made.id


async def test_entries_that_come_twice_are_told_once(api: Api, executor: FakeExecutor) -> None:
    box = await checked(api)
    executor.paused = True
    healthy = executor.probe(box, HEALTHY)
    executor.probe(box, UNHEALTHY, 3)
    executor.probe(box, UNHEALTHY, 4)
    executor.exit(box, 7)
    # In one batch with the first, and after what ended it.
    executor.retold = [[said(executor, entry) for entry in [*executor.journal, healthy, *executor.journal]]]
    executor.resume()
    await api.followed()
    executor.retold = [[said(executor, entry) for entry in executor.journal]]
    await api.start(box)
    await api.stop(box)
    await api.followed()
    shown = await api.inspect(box)
    assert (shown.state.running, shown.state.exit_code) == (False, 143)
    assert Counter(await api.actions(type=["container"])) == {
        "container create": 1,
        "container start": 2,
        "container health_status": 2,
        "container kill": 1,
        "container die": 2,
        "container stop": 1,
    }
    assert executor.calls.count("FollowJournal") == 1, "nothing was missing"


async def test_a_service_that_repeats_a_journal_tells_nothing_twice(tmp_path: Path, executor: FakeExecutor) -> None:
    """Its position lags behind the records by design."""
    async with running_api(tmp_path, executor) as api:
        await api.load()
        box = await checked(api)
        executor.probe(box, HEALTHY)
        executor.probe(box, UNHEALTHY, 3)
        executor.probe(box, UNHEALTHY, 4)
        executor.exit(box, 7)
        await api.followed()
        before = await api.actions()
        observer = api.engine.nodes.get("local").follower._observer
        for entry in [*executor.journal, *executor.journal]:
            await observer.observe([entry_from_proto(entry)])
        assert await api.actions() == before
        assert before.count("container health_status") == 2


@pytest.mark.parametrize("again", [False, True])
async def test_entries_out_of_order_are_asked_for_again(api: Api, executor: FakeExecutor, again: bool) -> None:
    """`again`: the journal is as disordered the second time; a snapshot tells what it is about then."""
    box = await api.run(name="box")
    await api.followed()
    executor.paused = True
    executor.exit(box, 3)
    container = executor.containers[box]
    executor.start(container, "restart")
    died, started = executor.journal[-2:]
    disordered = [said(executor, started), said(executor, died)]
    executor.retold = [disordered, disordered] if again else [disordered]
    with capture_logs():
        executor.resume()
        await executor.until(lambda: executor.calls.count("FollowJournal") == (3 if again else 2))
        await api.followed()
    assert executor.calls.count("FollowJournal") == (3 if again else 2)
    shown = await api.inspect(box)
    assert shown.state.running
    assert shown.state.pid == started.started.pid
    told = [item.event for item in await api.events(4, type=["container"])]
    assert [event.action for event in told] == ["create", "start", "die", "start"]
    assert told[2].attributes.get("exitCode") == (None if again else "3"), "a snapshot does not know it"


async def test_an_entry_of_another_journal_is_not_this_ones(api: Api, executor: FakeExecutor) -> None:
    box = await api.run(name="box")
    await api.followed()
    executor.paused = True
    signaled = executor.append(executor.containers[box], signaled=executor_pb2.Signaled(signal=1))
    alien = executor_pb2.JournalEntry(sequence=signaled.sequence, time=signaled.time, container_id=box)
    alien.exited.start_id, alien.exited.exit_code = "alien", 9
    # Not the first of its batch.
    executor.retold = [[said(executor, executor.journal[0]), said(executor, alien, "journal-2")]]
    with capture_logs() as log:
        executor.resume()
        await executor.until(lambda: executor.calls.count("FollowJournal") == 2)
        await api.followed()
    assert (await api.inspect(box)).state.running
    assert [line["error"] for line in log if "error" in line] == ["the node has another journal, 'journal-2'"]
    assert "container die" not in await api.actions()


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[tuple[Api, Mapping[str, FakeExecutor]]]:
    async with AsyncExitStack() as stack:
        fakes = await stack.enter_async_context(serving_nodes(tmp_path, "a", "b"))
        api = await stack.enter_async_context(running_api(tmp_path, fakes["a"], configured=False))
        await api.add_nodes(fakes)
        await api.load()
        yield api, fakes


async def test_what_a_node_says_of_anothers_container_changes_nothing(
    nodes: tuple[Api, Mapping[str, FakeExecutor]],
) -> None:
    api, fakes = nodes
    placement = container_pb2.Placement(constraints=["node.name==a"])
    box = await api.run(name="box", placement=placement)
    config = exec_pb2.ExecConfig(cmd=["sh"])
    running = (await api.execs.CreateExec(exec_pb2.CreateExecRequest(container=box, config=config))).id
    call = api.execs.StartExec(iter([exec_pb2.StartExecRequest(start=exec_pb2.ExecTarget(exec=running, detach=True))]))
    async for _ in call:
        pass
    own = await api.run(name="own", placement=container_pb2.Placement(constraints=["node.name==b"]))
    liar = fakes["b"]
    about_box = type(liar.containers[own])(spec=fakes["a"].containers[box].spec)
    liar.append(about_box, exited=executor_pb2.Exited(start_id="x", exit_code=9))
    liar.end_exec(about_box, running, 9)
    liar.end_exec(liar.containers[own], running, 9)  # its own container's, it says
    follower = api.engine.nodes.get("b").follower
    assert await follower.reached(len(liar.journal), patience=60)
    assert (await api.inspect(box)).state.running
    shown = (await api.execs.InspectExec(exec_pb2.InspectExecRequest(exec=running))).exec
    assert shown.running, "an exec ended on the word of a node where it does not run"
    assert "container die" not in await api.actions(type=["container"], container=[box])


@pytest.mark.parametrize("follows", [True, False])
async def test_an_answer_of_a_new_journal_is_not_taken_for_one_of_the_old(
    shared: SharedStore, executor: FakeExecutor, follows: bool
) -> None:
    """Its sequence is one that the old journal has passed long ago."""
    one = await shared.join("one", executor)
    two = await shared.join("two", executor, connected=False)
    await one.load()
    await one.create(name="web")
    for _ in range(3):
        await one.start("web")
        await one.stop("web")
    await one.followed()
    gate = asyncio.Event()
    executor.fault("FollowJournal", gate=gate)
    executor.new_journal()
    asked = one if follows else two
    await asked.start("web")
    assert (await asked.inspect("web")).state.running
    gate.set()
    await one.followed()
    assert (await one.inspect("web")).state.running
    assert (await one.actions(type=["container"])).count("container start") == 4
