"""Calls without an end of their own, when the service stops: also in the middle of what gRPC sends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from slipway.v1 import system_service_pb2 as pb2
from slipway.v1 import system_service_pb2_grpc as pb2_grpc

from api_service.server import stop
from api_service.servicers.call import Context, send_headers
from api_service.servicers.long_calls import LongCalls
from common.errors import Unavailable
from common.interceptor import CallInterceptor
from tests.fixtures.api import refused

_FAR_MORE_THAN_A_WINDOW = 1024 * 1024  # bytes; HTTP/2's flow control starts at 64 KiB


class Flooding:
    """Events as fast as gRPC takes them."""

    def __init__(self, long_calls: LongCalls) -> None:
        self._long_calls = long_calls
        self.made = asyncio.Event()  # set by each response, cleared by whoever looks

    async def StreamEvents(
        self, request: pb2.StreamEventsRequest, context: Context
    ) -> AsyncIterator[pb2.StreamEventsResponse]:
        async with self._long_calls.stream(self._flood()) as responses:
            async for response in responses:
                yield response

    async def _flood(self) -> AsyncGenerator[pb2.StreamEventsResponse]:
        while True:
            self.made.set()
            response = pb2.StreamEventsResponse()
            response.event.action = "x" * _FAR_MORE_THAN_A_WINDOW
            yield response


@asynccontextmanager
async def flooding(tmp_path: Path, long_calls: LongCalls) -> AsyncIterator[tuple[Flooding, grpc.aio.Server, Any]]:
    servicer = Flooding(long_calls)
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    stream_events = grpc.unary_stream_rpc_method_handler(
        servicer.StreamEvents, pb2.StreamEventsRequest.FromString, pb2.StreamEventsResponse.SerializeToString
    )
    service = grpc.method_handlers_generic_handler("slipway.v1.SystemService", {"StreamEvents": stream_events})
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"unix://{tmp_path}/api.sock")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix://{tmp_path}/api.sock") as channel:
        yield servicer, server, pb2_grpc.SystemServiceStub(channel).StreamEvents(pb2.StreamEventsRequest())
        await server.stop(0)


async def test_the_status_reaches_a_client_that_reads_slowly(tmp_path: Path) -> None:
    long_calls = LongCalls()
    async with flooding(tmp_path, long_calls) as (servicer, server, stream):
        await servicer.made.wait()
        while servicer.made.is_set():  # until gRPC is left with what the client does not take
            servicer.made.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(servicer.made.wait(), 0.2)
        stopped = asyncio.ensure_future(stop(server, long_calls, grace=30))
        refusal = await refused(_all_of(stream))
        await stopped
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")


async def _all_of(stream: Any) -> None:
    async for _ in stream:
        pass


async def test_nothing_is_waited_for_once_the_service_stops() -> None:
    long_calls = LongCalls()
    await long_calls.end(timeout=0)
    with pytest.raises(Unavailable), long_calls.waiting():
        raise AssertionError("it waits")


async def test_headers_are_sent_whole_before_a_call_ends() -> None:
    class Slow:
        sent = False
        began = asyncio.Event()
        goes = asyncio.Event()

        async def send_initial_metadata(self, _: tuple[()]) -> None:
            self.began.set()
            await self.goes.wait()
            self.sent = True

    slow = Slow()
    call = asyncio.ensure_future(send_headers(cast("Context", slow)))
    await slow.began.wait()
    call.cancel()
    slow.goes.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert slow.sent
