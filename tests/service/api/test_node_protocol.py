"""An executor of another version: shown as such, and nothing is asked of it; with one that fits everything goes on."""

from __future__ import annotations

from pathlib import Path

import grpc
from slipway.v1 import node_service_pb2 as node_pb
from slipway.v1 import system_service_pb2 as pb

from common.protocol_version import OURS, ProtocolRange
from common.version import VERSION
from tests.fixtures.api import Api, refused
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.shared_store import SharedStore

READY, UNREACHABLE = node_pb.NODE_STATE_READY, node_pb.NODE_STATE_UNREACHABLE


async def test_an_executor_of_another_version(api: Api, executor: FakeExecutor, tmp_path: Path) -> None:
    await api.create(name="kept")
    later = OURS.latest + 1
    executor.protocol = ProtocolRange(oldest=later, latest=later)
    await executor.down()
    await api.away()
    await executor.up()
    node = (await api.system.GetInfo(pb.GetInfoRequest())).nodes[0]
    assert not node.available
    assert f"speaks protocol {later}" in node.error
    assert "upgrade the API service" in node.error
    refusal = await refused(api.create(name="web"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NODE_INCOMPATIBLE")
    assert f"speaks protocol {later}" in refusal.message
    assert (await refused(api.start("kept"))).reason == "NODE_INCOMPATIBLE"
    assert "StartContainer" not in executor.calls
    seen = executor.calls.count("GetNode")
    await executor.until(lambda: executor.calls.count("GetNode") >= seen + 3)
    assert not api.engine.nodes.get("local").follower.connected
    await executor.down()
    executor.protocol = OURS
    await executor.up()
    await api.followed()
    await api.run(name="web")
    assert (await api.inspect("web")).state.running


async def test_who_does_not_follow_the_node_deals_with_it_again_as_well(
    shared: SharedStore, executor: FakeExecutor
) -> None:
    later = OURS.latest + 1
    following, beside = [await shared.join(name, executor, configured=False) for name in ("following", "beside")]
    await following.add_node("a", executor.address)
    await beside.node_in("a", READY)
    await beside.load()
    await beside.create(name="kept")
    await executor.down()
    executor.protocol = ProtocolRange(oldest=later, latest=later)
    await executor.up()
    await beside.node_in("a", UNREACHABLE)
    refusal = await refused(beside.start("kept"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NODE_INCOMPATIBLE")
    assert f"node 'a': its executor {VERSION} speaks protocol {later}" in refusal.message
    assert "upgrade the API service" in refusal.message
    assert "StartContainer" not in executor.calls
    await executor.down()
    executor.protocol = OURS
    await executor.up()
    await beside.node_in("a", READY)
    await beside.start("kept")
