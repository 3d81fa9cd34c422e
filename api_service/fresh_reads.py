"""Every call sees what was acknowledged before it came, by whichever replica."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc


class FreshReads(grpc.aio.ServerInterceptor):
    """`catch_up`: see `Store`."""

    def __init__(self, catch_up: Callable[[], Awaitable[bool]]) -> None:
        self._catch_up = catch_up

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        if handler_call_details.method.startswith("/slipway."):
            await self._catch_up()
        return await continuation(handler_call_details)
