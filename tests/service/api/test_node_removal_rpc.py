"""NodeService: nodes go, with what is on them or not, and nothing is put on one in that moment."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import grpc
import pytest
from slipway.executor.v1 import volume_store_service_pb2 as executor_volumes_pb2
from slipway.v1 import network_service_pb2 as network_pb2
from slipway.v1 import node_service_pb2 as pb2
from slipway.v1 import volume_service_pb2 as volume_pb2

from api_service.nodes.lease import LeaseTerms
from api_service.records.moves import MoveRepository
from tests.fixtures.api import PATIENCE, Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor

READY, UNREACHABLE = pb2.NODE_STATE_READY, pb2.NODE_STATE_UNREACHABLE


async def test_a_node_in_use_stays(cluster: Api, executors: Mapping[str, FakeExecutor]) -> None:
    await cluster.add_node("a", executors["a"].address)
    await cluster.node_in("a", READY)
    await cluster.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="data"))
    for force, reason in ((False, "NODE_IN_USE"), (True, "NODE_READY")):
        why = await refused(cluster.nodes.RemoveNode(pb2.RemoveNodeRequest(node="a", force=force)))
        assert (why.code, why.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
    await cluster.volumes.RemoveVolume(volume_pb2.RemoveVolumeRequest(volume="data"))
    await cluster.nodes.RemoveNode(pb2.RemoveNodeRequest(node="a"))
    assert (await refused(cluster.node("a"))).reason == "NODE_NOT_FOUND"
    assert await cluster.engine.nodes.until("a", present=False, patience=PATIENCE)
    await cluster.add_node("again", executors["a"].address)


async def test_force_forgets_what_was_on_a_node_that_does_not_answer(
    cluster: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    await cluster.add_node("a", executors["a"].address)
    await cluster.node_in("a", READY)
    await cluster.load()
    await cluster.run(name="web")
    await cluster.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="data"))
    await executors["a"].down()
    await cluster.node_in("a", UNREACHABLE)
    forgotten = await cluster.nodes.RemoveNode(pb2.RemoveNodeRequest(node="a", force=True))
    assert (list(forgotten.containers), list(forgotten.volumes), list(forgotten.networks)) == (["web"], ["data"], [])
    assert await cluster.names() == []
    assert await cluster.engine.images.all() == []


async def test_the_configured_node_is_not_removed(api: Api) -> None:
    why = await refused(api.nodes.RemoveNode(pb2.RemoveNodeRequest(node="local", force=True)))
    assert (why.code, why.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NODE_CONFIGURED")


async def test_the_only_node_that_is_being_forgotten_gets_nothing(
    cluster: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    await cluster.add_node("a", executors["a"].address)
    await cluster.node_in("a", READY)
    await cluster.load()
    gate = asyncio.Event()
    executors["a"].fault("GetNode", gate=gate)
    creating = asyncio.create_task(refused(cluster.create()))
    await executors["a"].until(lambda: executors["a"].calls.count("GetNode") > 2)
    async with cluster.engine.claims.hold("removal/a"):
        await cluster.engine.node_records.update("a", lambda found: dataclasses.replace(found, removing=True))
        gate.set()
        why = await asyncio.wait_for(creating, PATIENCE)
    assert (why.reason, "1 of 1 is being removed" in why.message) == ("NO_NODE_FITS", True)
    assert not executors["a"].containers


@pytest.mark.parametrize("there", [set(), {"data"}], ids=["", "on the node already, and nobody's"])
@pytest.mark.parametrize(("named", "reason"), [("a", "NODE_BEING_REMOVED"), ("", "NO_NODE_FITS")])
async def test_no_volume_is_made_on_a_node_in_the_moment_of_its_removal(
    cluster: Api, executors: Mapping[str, FakeExecutor], named: str, reason: str, there: set[str]
) -> None:
    await cluster.add_node("a", executors["a"].address)
    await cluster.node_in("a", READY)
    node = cluster.engine.nodes.get("a")
    # What is there when the node is looked through becomes its own.
    await executors["a"].until(lambda: "ListVolumes" in executors["a"].calls)
    executors["a"].volumes.update({name: executor_volumes_pb2.StoredVolume(name=name) for name in there})
    gate = asyncio.Event()
    reached = executors["a"].fault("CreateVolume", gate=gate).reached
    request = volume_pb2.CreateVolumeRequest(name="data", node=named)
    making = asyncio.create_task(refused(cluster.volumes.CreateVolume(request)))
    await reached.wait()
    async with cluster.engine.claims.hold("removal/a"):
        await cluster.engine.node_records.update("a", lambda found: dataclasses.replace(found, removing=True))
        await _until(lambda: node.record.removing)
        gate.set()
        why = await asyncio.wait_for(making, PATIENCE)
    assert (why.code, why.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
    assert await cluster.engine.volumes.all() == []
    assert set(executors["a"].volumes) == there, "what was made is left, or what was not is gone"
    await cluster.nodes.RemoveNode(pb2.RemoveNodeRequest(node="a"))
    assert await cluster.engine.nodes.until("a", present=False, patience=PATIENCE)
    await cluster.add_node("a", executors["a"].address)
    await cluster.node_in("a", READY)
    await cluster.volumes.CreateVolume(request)


async def test_a_network_goes_to_no_node_that_is_being_removed(
    cluster: Api, executors: Mapping[str, FakeExecutor]
) -> None:
    await cluster.add_node("a", executors["a"].address)
    await cluster.node_in("a", READY)
    node = cluster.engine.nodes.get("a")
    request = network_pb2.CreateNetworkRequest(name="net", node="a")
    async with cluster.engine.claims.hold("removal/a"):
        await cluster.engine.node_records.update("a", lambda found: dataclasses.replace(found, removing=True))
        why = await refused(cluster.networks.CreateNetwork(request))
        assert (why.code, why.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NODE_BEING_REMOVED")
        await _until(lambda: node.record.removing)
        unnamed = network_pb2.CreateNetworkRequest(name="net")
        assert (await refused(cluster.networks.CreateNetwork(unnamed))).reason == "NO_NODE_FITS"
        assert await cluster.engine.networks.every_phase() == []
        await cluster.engine.node_records.update("a", lambda found: dataclasses.replace(found, removing=False))
    await cluster.networks.CreateNetwork(request)


async def test_a_removal_that_nobody_finishes_is_taken_back(
    tmp_path: Path, executors: Mapping[str, FakeExecutor]
) -> None:
    terms = LeaseTerms(ttl=4.0, margin=1.0)
    async with running_api(tmp_path, executors["a"], configured=False, lease=terms) as api:
        await api.add_node("a", executors["a"].address)
        await api.node_in("a", READY)
        node = api.engine.nodes.get("a")
        async with api.engine.claims.hold("removal/a"):  # somebody is at it
            await api.engine.node_records.update("a", lambda found: dataclasses.replace(found, removing=True))
            await _until(lambda: node.record.removing)
            await asyncio.sleep(terms.ttl / 2)  # some looks at it
            assert node.record.removing
        await _until(lambda: not node.record.removing)
        await api.load()
        await api.create()


async def test_a_removal_that_was_taken_back_meanwhile_removes_nothing(
    cluster: Api, executors: Mapping[str, FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a service that hung for so long that its claims were over."""
    await cluster.add_node("a", executors["a"].address)
    await cluster.node_in("a", READY)
    engine = cluster.engine
    forget = MoveRepository.forget

    async def late(moves: MoveRepository, node: str) -> None:
        await forget(moves, node)
        await engine.node_records.update("a", lambda found: dataclasses.replace(found, removing=False))
        await _until(lambda: not engine.nodes.get("a").record.removing)
        await cluster.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="data", node="a"))

    monkeypatch.setattr(MoveRepository, "forget", late)
    why = await refused(cluster.nodes.RemoveNode(pb2.RemoveNodeRequest(node="a")))
    assert why.code is grpc.StatusCode.ABORTED
    assert (await cluster.node("a")).state == READY
    assert [each.node for each in await engine.volumes.all()] == ["a"]


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)
