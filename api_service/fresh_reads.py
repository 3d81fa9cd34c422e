"""Every call sees what was acknowledged before it came, by whichever replica."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

_BY_THEMSELVES = frozenset({"/slipway.v1.ContainerService/StartContainer"})
"""Calls whose operations see to it, because they can have it in a round trip that they make anyway."""


class FreshReads(grpc.aio.ServerInterceptor):
    """`catch_up`: see `Store`."""

    def __init__(self, catch_up: Callable[[], Awaitable[bool]]) -> None:
        self._catch_up = catch_up

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = handler_call_details.method
        if method.startswith("/slipway.") and method not in _BY_THEMSELVES:
            await self._catch_up()
        return await continuation(handler_call_details)
