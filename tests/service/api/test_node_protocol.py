"""An executor of another version: shown as such, and nothing is asked of it; with one that fits everything goes on."""

from __future__ import annotations

from pathlib import Path

import grpc
from slipway.v1 import system_service_pb2 as pb

from api_service.executor_client.protocol import OURS, ProtocolRange
from tests.fixtures.api import Api, refused
from tests.fixtures.fake_executor.executor import FakeExecutor


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
    executor.protocol = OURS
    await api.followed()
    await api.run(name="web")
    assert (await api.inspect("web")).state.running
