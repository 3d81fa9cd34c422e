"""NodeService: nodes come, are told apart, and are dealt with by every replica."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest
from slipway.v1 import node_service_pb2 as pb2
from structlog.testing import capture_logs

from tests.fixtures.api import PATIENCE, Api, refused
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.shared_store import SharedStore

READY, UNREACHABLE = pb2.NODE_STATE_READY, pb2.NODE_STATE_UNREACHABLE


async def test_the_configured_node_is_there_from_the_first(api: Api) -> None:
    node = await api.node_in("local", READY)
    assert node.configured
    assert (node.address, node.availability) == (api.executor.address, pb2.NODE_AVAILABILITY_ACTIVE)
    assert (node.description.version, node.description.hostname) == ("0.1.0", "fake-host")
    assert (node.capacity.nano_cpus, node.capacity.memory) == (2_000_000_000, 1 << 32)
    await api.run()
    await api.create()
    usage = (await api.node("local")).usage
    assert (usage.containers, usage.containers_running) == (2, 1)


async def test_an_added_node_is_ready_and_told(cluster: Api, executors: Mapping[str, FakeExecutor]) -> None:
    added = await cluster.add_node("a", executors["a"].address, labels={"zone": "north"})
    assert (added.name, added.executor_id, dict(added.labels)) == ("a", "id-of-a", {"zone": "north"})
    assert added.capacity.memory == 1 << 32
    ready = await cluster.node_in("a", READY)
    assert ready.state_reason == ""
    create, update = (each.event for each in await cluster.events(2, type=["node"]))
    assert (create.action, create.actor_id, create.attributes["zone"]) == ("create", "a", "north")
    assert (update.action, update.attributes["state.new"]) == ("update", "ready")


async def test_a_node_that_does_not_answer_is_taken_in_and_asked_again(
    cluster: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    await executors["a"].down()
    added = await cluster.add_node("a", executors["a"].address)
    assert added.state == UNREACHABLE
    assert "does not answer" in added.state_reason
    await executors["a"].up()
    assert (await cluster.node_in("a", READY)).executor_id == "id-of-a"


async def test_state_follows_the_node(cluster: Api, executors: Mapping[str, FakeExecutor]) -> None:
    await cluster.add_node("a", executors["a"].address)
    ready = await cluster.node_in("a", READY)
    await executors["a"].down()
    away = await cluster.node_in("a", UNREACHABLE)
    assert "does not answer" in away.state_reason
    assert away.state_since.ToNanoseconds() >= ready.state_since.ToNanoseconds()
    assert away.description.version == "0.1.0"
    await executors["a"].up()
    assert (await cluster.node_in("a", READY)).state_reason == ""


async def test_one_name_address_or_executor_belongs_to_one_node(
    cluster: Api, executors: Mapping[str, FakeExecutor], tmp_path: Path
) -> None:
    await cluster.add_node("a", executors["a"].address)
    same_name = await refused(cluster.add_node("a", executors["b"].address))
    assert (same_name.code, same_name.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NODE_NAME_IN_USE")
    same_address = await refused(cluster.add_node("c", executors["a"].address))
    assert same_address.reason == "NODE_ADDRESS_IN_USE"
    alias = tmp_path / "alias.sock"
    alias.symlink_to(tmp_path / "a.sock")
    same_executor = await refused(cluster.add_node("c", f"unix://{alias}"))
    assert same_executor.reason == "NODE_EXECUTOR_IN_USE"
    assert "'a'" in same_executor.message
    assert [node.name for node in (await cluster.nodes.ListNodes(pb2.ListNodesRequest())).nodes] == ["a"]


async def test_the_same_executor_found_out_later_is_not_dealt_with(
    cluster: Api, executors: Mapping[str, FakeExecutor], tmp_path: Path
) -> None:
    await cluster.add_node("a", executors["a"].address)
    alias = tmp_path / "alias.sock"
    await cluster.add_node("c", f"unix://{alias}")
    alias.symlink_to(tmp_path / "a.sock")
    async with asyncio.timeout(PATIENCE):
        async for name, record in cluster.engine.node_records.watch():
            if name == "c" and record is not None and "is that of node 'a'" in record.status.reason:
                break
    assert (await cluster.node("c")).state == UNREACHABLE


async def test_another_executor_at_the_address_is_refused_everything(
    cluster: Api, executors: Mapping[str, FakeExecutor], tmp_path: Path
) -> None:
    await cluster.add_node("a", executors["a"].address)
    await cluster.node_in("a", READY)
    await cluster.load()
    await cluster.create(name="web")
    await executors["a"].down()
    async with FakeExecutor(tmp_path / "a.sock", node_id="impostor").serving() as impostor:
        away = await cluster.node_in("a", UNREACHABLE)
        async with asyncio.timeout(PATIENCE):
            while "another executor" not in away.state_reason:
                await cluster.engine.nodes.get("a").follower.changed()
                away = await cluster.node("a")
        start = await refused(cluster.start("web"))
        assert (start.code, start.reason) == (grpc.StatusCode.UNAVAILABLE, "ANOTHER_EXECUTOR")
        assert impostor.calls == []
    await executors["a"].up()
    await cluster.node_in("a", READY)
    await cluster.start("web")


async def test_who_another_replica_has_met_is_the_nodes_executor(
    cluster: Api, executors: Mapping[str, FakeExecutor], tmp_path: Path
) -> None:
    """Also before it is known here that it has, and when somebody else is at the address by now."""
    await executors["a"].down()
    await cluster.add_node("a", executors["a"].address)
    node, records = cluster.engine.nodes.get("a"), cluster.engine.node_records
    await records.update("a", lambda found: dataclasses.replace(found, executor_id="id-of-a"))
    async with asyncio.timeout(PATIENCE):
        while not node.record.executor_id:
            await asyncio.sleep(0.01)
    node.record = dataclasses.replace(node.record, executor_id="")
    node.executor.meant_for("")
    async with FakeExecutor(tmp_path / "a.sock", node_id="impostor").serving() as impostor:
        async with asyncio.timeout(PATIENCE):
            while "another one (impostor)" not in node.follower.failure:
                await node.follower.changed()
        assert (await records.find("a")).executor_id == "id-of-a"
        assert set(impostor.calls) == {"GetNode"}


async def test_a_node_of_other_settings_goes_without_a_fault(
    cluster: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    records = cluster.engine.node_records
    await cluster.add_node("a", executors["a"].address)
    elsewhere = dataclasses.replace(await records.find("a"), name="other", address="unix:///other", configured=True)
    with capture_logs() as said:
        await records.add(dataclasses.replace(elsewhere, executor_id=""))
        stored = await records.get("other")
        assert stored is not None
        assert await records.delete(stored)
        await cluster.add_node("b", executors["b"].address)
        await cluster.node_in("b", READY)
    assert [each for each in said if each["event"] == "nodes on record not followed"] == []


async def test_update_sets_labels_and_availability(api: Api) -> None:
    request = pb2.UpdateNodeRequest(
        node="local", set_labels={"zone": "north", "disk": "ssd"}, availability=pb2.NODE_AVAILABILITY_CORDONED
    )
    node = (await api.nodes.UpdateNode(request)).node
    assert (dict(node.labels), node.availability) == (
        {"zone": "north", "disk": "ssd"},
        pb2.NODE_AVAILABILITY_CORDONED,
    )
    node = (await api.nodes.UpdateNode(pb2.UpdateNodeRequest(node="local", remove_labels=["disk"]))).node
    assert (dict(node.labels), node.availability) == ({"zone": "north"}, pb2.NODE_AVAILABILITY_CORDONED)
    first, _ = (each.event for each in await api.events(2, type=["node"]))
    assert first.attributes["availability.new"] == "cordoned"
    both = pb2.UpdateNodeRequest(node="local", set_labels={"zone": "south"}, remove_labels=["zone"])
    assert list((await refused(api.nodes.UpdateNode(both))).violations) == ["remove_labels"]


async def test_list_filters(cluster: Api, executors: Mapping[str, FakeExecutor]) -> None:
    await executors["b"].down()
    await cluster.add_node("one", executors["a"].address, labels={"zone": "north"})
    await cluster.add_node("two", executors["b"].address, availability=pb2.NODE_AVAILABILITY_DRAINED)
    await cluster.node_in("one", READY)

    async def names(**wanted: object) -> list[str]:
        answer = await cluster.nodes.ListNodes(pb2.ListNodesRequest(**wanted))  # type: ignore[arg-type]
        return [node.name for node in answer.nodes]

    assert await names() == ["one", "two"]
    assert await names(name=["tw"]) == ["two"]
    assert await names(label=["zone=north"]) == ["one"]
    assert await names(availability=[pb2.NODE_AVAILABILITY_DRAINED]) == ["two"]
    assert await names(state=[READY]) == ["one"]
    assert await names(state=[READY, UNREACHABLE], name=["one"]) == ["one"]


@pytest.mark.parametrize("address", ["nowhere", "host:65536", "unix://relative", "http://x:1"])
async def test_addresses_that_are_none(cluster: Api, address: str) -> None:
    assert list((await refused(cluster.add_node("a", address))).violations) == ["address"]


async def test_every_replica_deals_with_a_node_and_one_follows_it(
    shared: SharedStore, executors: Mapping[str, FakeExecutor]
) -> None:
    one, two = [await shared.join(name, executors["a"], configured=False) for name in ("one", "two")]
    await one.add_node("a", executors["a"].address)
    assert await two.engine.nodes.until("a", present=True, patience=PATIENCE)
    await two.node_in("a", READY)
    await two.load()
    await two.create(name="web")
    assert [each.calls.count("FollowJournal") for each in (executors["a"],)] == [1]
    await two.remove("web")
    await two.nodes.RemoveNode(pb2.RemoveNodeRequest(node="a"))
    assert await one.engine.nodes.until("a", present=False, patience=PATIENCE)


async def test_a_replica_that_has_not_met_the_executor_asks_no_other_one(
    shared: SharedStore, executors: Mapping[str, FakeExecutor]
) -> None:
    """It is another one that has."""
    one, two = [await shared.join(name, executors["a"], configured=False) for name in ("one", "two")]
    await executors["a"].down()
    await one.add_node("a", executors["a"].address)
    assert await two.engine.nodes.until("a", present=True, patience=PATIENCE)
    await executors["a"].up()
    await one.node_in("a", READY)
    await one.load()
    box = await one.create()
    async with asyncio.timeout(PATIENCE):
        while two.engine.nodes.get("a").record.executor_id != "id-of-a":
            await asyncio.sleep(0.01)
    await executors["a"].down()
    executors["a"].node_id = "another"
    await executors["a"].up()
    executors["a"].calls.clear()
    assert (await refused(two.start(box))).reason == "ANOTHER_EXECUTOR"
    assert "StartContainer" not in executors["a"].calls
