"""Two API services over one store and one executor, of which one follows the node's journal."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import node_service_pb2 as node_pb2

from api_service.executor_client.journal import JournalEntry
from api_service.nodes.journal_follower import JournalFollower
from api_service.nodes.observer import Observer
from api_service.operations.node_sweep import sweep_node
from api_service.records.container import ContainerRecord, JournalPosition
from api_service.records.node import NodeState, NodeStatus
from tests.fixtures.api import PATIENCE, Api, refused
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.shared_store import SharedStore


@pytest.fixture
async def replicas(shared: SharedStore, executor: FakeExecutor) -> tuple[Api, Api]:
    """The first follows the journal."""
    one = await shared.join("one", executor)
    two = await shared.join("two", executor, connected=False)
    await one.load()
    return one, two


async def test_who_does_not_follow_the_journal_waits_for_who_does(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what it tells, and not for a time to pass."""
    monkeypatch.setattr("api_service.nodes.registry._JOURNAL_PATIENCE", 3600)
    one, two = replicas
    assert one.engine.nodes.get("local").follower.following
    assert not two.engine.nodes.get("local").follower.following
    async with asyncio.timeout(PATIENCE):
        box = await two.create(name="box")
        await two.start("box")
        assert (await one.inspect("box")).state.running
        await two.stop("box")
        assert not (await one.inspect("box")).state.running
        await one.start("box")
    expected = ["create", "start", "kill", "die", "stop", "start"]
    for api in replicas:
        told = await api.events(len(expected), type=["container"])
        assert [item.event.action for item in told if item.event.actor_id == box] == expected


async def test_who_has_no_connection_to_a_node_that_is_ready_waits_for_one(
    replicas: tuple[Api, Api], executor: FakeExecutor
) -> None:
    """As the records say: the other one has it already."""
    one, two = replicas
    box = await two.create(name="box")
    await executor.down()
    await two.away()
    await two.node_in("local", node_pb2.NODE_STATE_UNREACHABLE)
    assert (await asyncio.wait_for(refused(two.start(box)), 2)).reason == "NODE_UNAVAILABLE"
    status = NodeStatus(state=NodeState.READY, since=0)
    await one.engine.node_records.update("local", lambda found: dataclasses.replace(found, status=status))
    await two.node_in("local", node_pb2.NODE_STATE_READY)
    starting = asyncio.ensure_future(two.start(box))
    assert not (await asyncio.wait([starting], timeout=0.5))[0]
    await executor.up()
    await asyncio.wait_for(starting, 5)


async def test_an_answer_that_the_journal_does_not_tell_in_time_is_applied(
    replicas: tuple[Api, Api], executor: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api_service.nodes.registry._JOURNAL_PATIENCE", 0.01)
    one, two = replicas
    box = await two.create()
    observer = one.engine.nodes.get("local").follower._observer
    held = asyncio.Event()

    async def hang(*arguments: object, **more: object) -> None:
        await held.wait()

    with monkeypatch.context() as context:
        context.setattr(observer, "observe", hang)
        await two.start(box)
        assert (await two.inspect(box)).state.running
    held.set()
    await one.followed()
    assert (await two.actions(type=["container"])) == ["container create", "container start"]


async def test_who_was_waited_for_in_vain_is_not_waited_for_again_until_it_tells_something(
    replicas: tuple[Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that was killed has its claim for some seconds more, and every start on its nodes waited each time."""
    monkeypatch.setattr("api_service.nodes.registry._JOURNAL_PATIENCE", 0.01)

    async def unsaved(follower: JournalFollower) -> None:
        """The positions are this test's."""

    monkeypatch.setattr(JournalFollower, "_save", unsaved)
    one, two = replicas
    cursors = one.engine.nodes.get("local").follower._cursors
    waited: list[float] = []
    told, observe, held = Observer.told, Observer.observe, asyncio.Event()

    async def counted(observer: Observer, entry: JournalEntry, *, patience: float) -> bool:
        waited.append(patience)
        return await told(observer, entry, patience=patience)

    async def hang(observer: Observer, entries: Sequence[JournalEntry]) -> ContainerRecord | None:
        if observer is one.engine.nodes.get("local").follower._observer:
            await held.wait()
        return await observe(observer, entries)

    await cursors.set("local", JournalPosition(journal_id="j", sequence=1))
    boxes = [await two.create(name=f"c{number}") for number in range(4)]
    monkeypatch.setattr(Observer, "told", counted)
    monkeypatch.setattr(Observer, "observe", hang)
    for box in boxes[:3]:
        await two.start(box)
        assert (await two.inspect(box)).state.running
    assert waited == [0.01, 0, 0]
    held.set()
    await one.followed()
    await cursors.set("local", JournalPosition(journal_id="j", sequence=2))
    await two.start(boxes[3])
    assert waited[3] == 0.01


async def test_a_create_under_way_elsewhere_is_not_left_behind(
    replicas: tuple[Api, Api], executor: FakeExecutor
) -> None:
    one, two = replicas
    gate = asyncio.Event()
    executor.fault("CreateContainer", gate=gate)
    creating = asyncio.create_task(two.create(name="slow"))
    await executor.until(lambda: "CreateContainer" in executor.calls)
    [draft] = two.engine.creating
    await sweep_node(one.engine, one.engine.nodes.get("local"))
    assert await one.engine.containers.exists(draft)
    gate.set()
    assert await asyncio.wait_for(creating, PATIENCE) == draft
    assert (await one.inspect("slow")).id == draft


async def test_a_verb_waits_for_one_on_another_replica(replicas: tuple[Api, Api], executor: FakeExecutor) -> None:
    one, two = replicas
    box = await one.create()
    gate = asyncio.Event()
    executor.fault("StartContainer", gate=gate)
    starting = asyncio.create_task(one.start(box))
    await executor.until(lambda: "StartContainer" in executor.calls)
    again = asyncio.create_task(two.start(box))
    await asyncio.sleep(0.05)
    assert not again.done()
    gate.set()
    await asyncio.wait_for(asyncio.gather(starting, again), PATIENCE)
    assert executor.calls.count("StartContainer") == 1, "the second found it running"


async def test_two_removals_of_one_container_are_one(replicas: tuple[Api, Api], executor: FakeExecutor) -> None:
    one, two = replicas
    box = await one.create()
    gate = asyncio.Event()
    executor.fault("RemoveContainer", gate=gate)
    removals = [asyncio.create_task(one.remove(box))]
    await executor.until(lambda: "RemoveContainer" in executor.calls)
    removals.append(asyncio.create_task(two.remove(box)))
    await asyncio.sleep(0.05)
    gate.set()
    await asyncio.wait_for(asyncio.gather(*removals), PATIENCE)
    assert executor.calls.count("RemoveContainer") == 1
    assert await two.names() == []


async def test_a_name_asked_of_both_has_one_winner(replicas: tuple[Api, Api]) -> None:
    asked = [
        api.containers.CreateContainer(
            pb2.CreateContainerRequest(
                name="web", config=container_pb2.ContainerConfig(image="busybox", cmd=["x"]), request_id="same"
            )
        )
        for api in replicas
        for _ in range(5)
    ]
    ids = {answer.id for answer in await asyncio.gather(*asked)}
    assert len(ids) == 1
    assert await replicas[0].names() == ["web"]
