"""The node of a service's settings, among nodes that were taken in and those of other settings."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from slipway.v1 import node_service_pb2 as pb2
from structlog.testing import capture_logs

from api_service.nodes.misnamed import Misnamed
from api_service.store.claims import LocalClaims
from api_service.store.memory_store import MemoryStore
from tests.fixtures.api import PATIENCE, Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.shared_store import SharedStore

READY = pb2.NODE_STATE_READY


async def _taken_in(shared: SharedStore, fake: FakeExecutor) -> Api:
    """A service without a node of its own, with the container `web` on `local`, which was taken in."""
    api = await shared.join("one", fake, configured=False)
    await api.add_node("local", fake.address, labels={"zone": "a"})
    await api.node_in("local", READY)
    await api.load()
    await api.run(name="web")
    return api


async def test_a_node_that_was_taken_in_stays_everybodys_when_a_service_is_configured_with_its_name(
    shared: SharedStore, executors: Mapping[str, FakeExecutor]
) -> None:
    """As of somebody who forgets `executor = "none"`: on another machine it is another executor."""
    one = await _taken_in(shared, executors["a"])
    before = await one.node("local")
    with capture_logs() as said:
        two = await shared.join("two", executors["b"], connected=False)
    (why,) = [each["event"] for each in said if each["log_level"] == "error"]
    assert "--node" in why
    assert "--executor none" in why
    assert await two.node("local") == before
    for each in (one, two):
        await each.stop("web")
        await each.start("web")
    await shared.leave("one")
    await two.stop("web")
    three = await shared.join("three", executors["a"], configured=False)
    await three.start("web")
    assert executors["b"].calls == []


async def test_the_node_of_running_settings_that_is_taken_in_by_another_service_is_dealt_with_as_all_do(
    shared: SharedStore, executors: Mapping[str, FakeExecutor], tmp_path: Path
) -> None:
    one = await shared.join("one", executors["a"])
    two = await shared.join("two", executors["b"], configured=False)
    await one.node_in("local", READY)
    await one.load()
    web = await one.run(name="web")
    address = f"unix://{tmp_path}/everybodys.sock"
    (tmp_path / "everybodys.sock").symlink_to(tmp_path / "a.sock")
    before = one.engine.nodes.get("local")
    added = await two.add_node("local", address)
    async with asyncio.timeout(PATIENCE):
        while one.engine.nodes.find("local") in (None, before):
            await asyncio.sleep(0.01)
    for each in (one, two):
        await each.stop("web")
        await each.start("web")
    assert executors["a"].containers[web].running
    await shared.leave("one")
    again = await shared.join("again", executors["a"], connected=False)
    assert (found := await again.node("local")).address == address
    assert (found.configured, found.created_at) == (False, added.created_at)
    await again.remove("web", force=True)
    await again.nodes.RemoveNode(pb2.RemoveNodeRequest(node="local"))


async def test_a_node_that_becomes_one_of_other_settings_is_left_to_them(
    shared: SharedStore, executors: Mapping[str, FakeExecutor]
) -> None:
    """Neither is it said to be of ours, nor kept from being taken in again with what it had."""
    one = await _taken_in(shared, executors["a"])
    cordoned = pb2.NODE_AVAILABILITY_CORDONED
    await one.nodes.UpdateNode(pb2.UpdateNodeRequest(node="local", availability=cordoned))
    await one.engine.node_records.update(
        "local",
        lambda found: dataclasses.replace(found, configured=True, address="unix:///theirs", promised_lease=7.0),
    )
    assert await one.engine.nodes.until("local", present=False, patience=PATIENCE)
    assert (await refused(one.nodes.RemoveNode(pb2.RemoveNodeRequest(node="local")))).reason == "NODE_IN_USE"
    added = await one.add_node("local", executors["a"].address, labels={"disk": "ssd"})
    assert (dict(added.labels), added.availability) == ({"zone": "a", "disk": "ssd"}, cordoned)
    assert (await one.engine.node_records.find("local")).promised_lease == 7.0
    await one.stop("web")


async def test_no_node_gets_more_labels_by_being_taken_in_than_one_may_have(
    shared: SharedStore, executors: Mapping[str, FakeExecutor]
) -> None:
    one = await _taken_in(shared, executors["a"])
    await one.engine.node_records.update("local", lambda found: dataclasses.replace(found, configured=True))
    assert await one.engine.nodes.until("local", present=False, patience=PATIENCE)
    why = await refused(one.add_node("local", executors["a"].address, labels={f"l{i}": "" for i in range(100)}))
    assert "101 labels" in why.violations["labels"]


async def test_the_node_of_settings_that_no_service_has_any_more_is_taken_in_with_all_that_is_on_it(
    tmp_path: Path, executors: Mapping[str, FakeExecutor]
) -> None:
    """As of a machine that becomes one of a cluster: its records were moved, and name its node."""
    async with MemoryStore() as store:
        (tmp_path / "alone").mkdir()
        async with running_api(tmp_path / "alone", executors["a"], store=(store, LocalClaims())) as alone:
            await alone.load()
            web = await alone.run(name="web")
            await alone.node_in("local", READY)
        async with running_api(tmp_path, executors["b"], configured=False, store=(store, LocalClaims())) as cluster:
            assert (await refused(cluster.stop("web"))).code is grpc.StatusCode.NOT_FOUND
            for another in (executors["b"].address, f"unix://{tmp_path}/nobody.sock"):
                why = await refused(cluster.add_node("local", another))
                assert why.reason == "NODE_NAME_IN_USE"
            added = await cluster.add_node("local", executors["a"].address, labels={"zone": "a"})
            assert not added.configured
            await cluster.node_in("local", READY)
            assert (await cluster.inspect(web)).state.running
            assert (await cluster.stop("web")).already_stopped is False
            await cluster.add_node("b", executors["b"].address)
            why = await refused(cluster.add_node("local", executors["a"].address))
            assert why.reason == "NODE_NAME_IN_USE"


async def test_two_services_with_a_node_of_the_same_name_each(
    shared: SharedStore, executors: Mapping[str, FakeExecutor]
) -> None:
    """As of two machines whose settings are the usual ones: the second's executor is asked for nothing, also when the
    first service has gone."""
    one = await shared.join("one", executors["a"], connected=False)
    await one.node_in("local", READY)
    await one.load()
    web = await one.run(name="web")
    two = await shared.join("two", executors["b"], connected=False)
    assert (await refused(two.stop("web"))).reason == "ANOTHER_EXECUTOR"
    await shared.leave("one")
    async with asyncio.timeout(PATIENCE):
        while "another executor" not in (node := await two.node("local")).state_reason:
            await two.engine.nodes.get("local").follower.changed()
    assert "--node" in node.state_reason
    assert (await two.inspect(web)).state.running
    assert executors["b"].calls == []


async def test_the_executors_of_two_machines_have_the_same_socket(
    tmp_path: Path, executors: Mapping[str, FakeExecutor]
) -> None:
    """Each service has a name of its own for its node; the path says nothing of the machine."""
    async with MemoryStore() as store:
        async with running_api(tmp_path, executors["a"], store=(store, LocalClaims()), connected=False) as one:
            await one.node_in("local", READY)
        await executors["a"].down()
        executors["a"].node_id = "id-of-the-other-machine"
        await executors["a"].up()
        beside = running_api(tmp_path, executors["a"], node="second", store=(store, LocalClaims()), connected=False)
        async with beside as two:
            assert (await two.node_in("second", READY)).executor_id == "id-of-the-other-machine"


async def _with_a_container(directory: Path, fake: FakeExecutor) -> str:
    """On record as on `local`, in the store of a service that has ended."""
    async with running_api(directory, fake) as before:
        await before.load()
        container = await before.run(name="web")
        await before.node_in("local", READY)
    return container


async def test_a_service_that_has_the_store_alone_is_not_started_with_another_name_for_its_node(
    tmp_path: Path, executors: Mapping[str, FakeExecutor]
) -> None:
    web = await _with_a_container(tmp_path, executors["a"])
    executors["a"].calls.clear()
    with pytest.raises(Misnamed, match=r"'renamed'.*--node local.*--state-dir"):
        async with running_api(tmp_path, executors["a"], node="renamed", connected=False):
            pass
    assert executors["a"].calls == ["GetNode"]
    async with running_api(tmp_path, executors["a"]) as again:
        assert [node.name for node in (await again.nodes.ListNodes(pb2.ListNodesRequest())).nodes] == ["local"]
        assert executors["a"].containers[web].running
        await again.stop("web")


async def test_another_name_is_found_out_when_the_executor_comes_and_reads_are_served_until_then(
    tmp_path: Path, executors: Mapping[str, FakeExecutor]
) -> None:
    await _with_a_container(tmp_path, executors["a"])
    await executors["a"].down()
    executors["a"].calls.clear()
    found_out: asyncio.Future[Misnamed] = asyncio.get_running_loop().create_future()

    def on_misnamed(error: Misnamed) -> None:
        if not found_out.done():
            found_out.set_result(error)

    running = running_api(tmp_path, executors["a"], node="renamed", connected=False, on_misnamed=on_misnamed)
    async with running as api:
        assert (await api.inspect("web")).state.running
        await executors["a"].up()
        assert "--node local" in (await asyncio.wait_for(found_out, PATIENCE)).message
        assert set(executors["a"].calls) == {"GetNode"}
    async with running_api(tmp_path, executors["a"]) as again:
        await again.stop("web")
        # What the wrong name has left.
        await again.nodes.RemoveNode(pb2.RemoveNodeRequest(node="renamed"))


async def test_another_executor_may_have_another_name(tmp_path: Path, executors: Mapping[str, FakeExecutor]) -> None:
    await _with_a_container(tmp_path, executors["a"])
    async with running_api(tmp_path, executors["b"], node="renamed", connected=False) as api:
        assert (await api.node_in("renamed", READY)).executor_id == "id-of-b"
        left = await api.node("local")
        assert (left.state, "AddNode" in left.state_reason) == (pb2.NODE_STATE_UNREACHABLE, True)
        assert await api.actions(type=["node"]) == ["node update"]
        await api.add_node("local", executors["a"].address)
        await api.node_in("local", READY)
        await api.stop("web")


@pytest.mark.parametrize("configured", [True, False], ids=["another", "none"])
async def test_the_node_of_earlier_settings_can_be_forgotten(
    tmp_path: Path, executors: Mapping[str, FakeExecutor], configured: bool
) -> None:
    """Nobody follows it, so nobody else would say that it does not answer."""
    await _with_a_container(tmp_path, executors["a"])
    settings: dict[str, Any] = {"node": "other", "configured": configured, "connected": False}
    async with running_api(tmp_path, executors["b"], **settings) as api:
        assert (await refused(api.nodes.RemoveNode(pb2.RemoveNodeRequest(node="local")))).reason == "NODE_IN_USE"
        forgotten = await api.nodes.RemoveNode(pb2.RemoveNodeRequest(node="local", force=True))
        assert list(forgotten.containers) == ["web"]


async def test_the_executor_of_a_node_that_was_taken_in_is_not_the_settings_node_too(
    tmp_path: Path, executors: Mapping[str, FakeExecutor]
) -> None:
    async with running_api(tmp_path, executors["a"], configured=False) as before:
        await before.add_node("a", executors["a"].address)
        await before.node_in("a", READY)
    with pytest.raises(Misnamed, match=r"as node 'a'.*--executor none"):
        async with running_api(tmp_path, executors["a"], connected=False):
            pass
