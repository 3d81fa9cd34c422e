"""The interceptor around a real server: rules of the message, error statuses, and silence about bugs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_status import rpc_status
from slipway.v1 import system_service_pb2 as pb
from slipway.v1 import system_service_pb2_grpc as rpc
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from common.errors import NotFound
from common.healthcheck import serving
from common.interceptor import CallInterceptor


class Servicer(rpc.SystemServiceServicer):
    """Each RPC ends in another way."""

    async def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.GetVersionResponse:
        raise NotFound("No such node: n1", resource_type="node", resource_name="n1")

    async def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoResponse:
        raise ZeroDivisionError("secret detail")

    async def StreamEvents(
        self, request: pb.StreamEventsRequest, context: Any
    ) -> AsyncIterator[pb.StreamEventsResponse]:
        yield pb.StreamEventsResponse(cursor="1")
        raise ZeroDivisionError("secret detail")

    async def GetDiskUsage(self, request: pb.GetDiskUsageRequest, context: Any) -> pb.GetDiskUsageResponse:
        return pb.GetDiskUsageResponse(logs_size=1)


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    rpc.add_SystemServiceServicer_to_server(Servicer(), server)
    checks = health.aio.HealthServicer()
    add_HealthServicer_to_server(checks, server)
    address = f"unix://{tmp_path}/api.sock"
    server.add_insecure_port(address)
    await server.start()
    yield address
    await server.stop(0)


@pytest.fixture
async def stub(address: str) -> AsyncIterator[rpc.SystemServiceStub]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield rpc.SystemServiceStub(channel)


async def test_an_expected_error_arrives_with_its_code_and_details(stub: rpc.SystemServiceStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetVersion(pb.GetVersionRequest())

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]  # AioRpcError has what it reads
    assert status is not None
    resource = error_details_pb2.ResourceInfo()
    assert any(packed.Is(resource.DESCRIPTOR) and packed.Unpack(resource) for packed in status.details)
    assert resource.resource_name == "n1"


async def test_rules_of_the_message_are_answered_before_the_servicer_runs(stub: rpc.SystemServiceStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stub.StreamEvents(pb.StreamEventsRequest(cursor="x" * 65))))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").startswith("cursor: ")


async def test_a_bug_shows_an_id_and_the_log_has_the_cause_under_it(stub: rpc.SystemServiceStub) -> None:
    with capture_logs(processors=[merge_contextvars]) as logs, pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetInfo(pb.GetInfoRequest())

    details = caught.value.details() or ""
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in details
    assert "Traceback" not in details
    entry = next(entry for entry in logs if entry["event"] == "unexpected error")
    assert isinstance(entry["exc_info"], ZeroDivisionError)
    assert f"call={entry['call']}" in details


async def test_a_stream_that_breaks_ends_with_a_status_after_what_it_sent(stub: rpc.SystemServiceStub) -> None:
    received = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for response in stub.StreamEvents(pb.StreamEventsRequest()):
            received.append(response.cursor)

    assert received == ["1"]
    assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_a_call_that_succeeds_passes_unchanged(stub: rpc.SystemServiceStub) -> None:
    assert (await stub.GetDiskUsage(pb.GetDiskUsageRequest())).logs_size == 1


async def test_the_health_check_knows_up_from_down(address: str, tmp_path: Path) -> None:
    assert await serving(address, wait=0)
    assert not await serving(f"unix://{tmp_path}/nobody.sock", wait=0)
