"""Calls that another version of the API service makes are refused before they ask for anything."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2
from slipway.executor.v1 import node_service_pb2 as node_pb
from slipway.executor.v1 import node_service_pb2_grpc as node_rpc
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb
from slipway.executor.v1 import runtime_service_pb2_grpc as runtime_rpc

from common.call_terms import SPOKEN
from common.protocol_version import OURS, ProtocolRange
from executor_service.server import serving
from tests.fixtures.api import refused
from tests.fixtures.fake_host.host import FakeHost

LATER = ProtocolRange(oldest=OURS.latest + 1, latest=OURS.latest + 2)


@pytest.fixture
async def channel(host: FakeHost) -> AsyncIterator[grpc.aio.Channel]:
    host.paths.socket.parent.mkdir(parents=True, exist_ok=True)
    async with (
        host.executor() as executor,
        serving(executor, socket=host.paths.socket, socket_gid=0, grace=2),
        grpc.aio.insecure_channel(f"unix://{host.paths.socket}") as channel,
    ):
        yield channel


@pytest.mark.parametrize("spoken", [LATER.written, "later", "", "-", "1-", f"{'9' * 400}-{'9' * 400}"])
async def test_a_protocol_that_it_does_not_speak(channel: grpc.aio.Channel, spoken: str) -> None:
    metadata = ((SPOKEN, spoken),)
    runtime = runtime_rpc.RuntimeServiceStub(channel)
    listing = runtime.ListContainers(runtime_pb.ListContainersRequest(), metadata=metadata, timeout=60)
    for call in (listing, anext(aiter(runtime.FollowJournal(runtime_pb.FollowJournalRequest(), metadata=metadata)))):
        why = await refused(call)
        assert (why.code, why.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NODE_INCOMPATIBLE")
        assert f"speaks protocol {OURS}, and who calls it" in why.message


async def test_what_tells_its_version_and_who_says_none(channel: grpc.aio.Channel) -> None:
    other = ((SPOKEN, LATER.written),)
    node = await node_rpc.NodeServiceStub(channel).GetNode(node_pb.GetNodeRequest(), metadata=other, timeout=60)
    assert node.protocol_version == OURS.latest
    codec = (health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString)
    check = channel.unary_unary("/grpc.health.v1.Health/Check", *codec)
    assert (await check(health_pb2.HealthCheckRequest(), metadata=other, timeout=60)).status
    runtime = runtime_rpc.RuntimeServiceStub(channel)
    for metadata in ((), ((SPOKEN, OURS.written),), ((SPOKEN, f"0-{OURS.latest + 9}"),)):
        await runtime.ListContainers(runtime_pb.ListContainersRequest(), metadata=metadata, timeout=60)
