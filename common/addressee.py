"""Which executor a call is meant for. An address may lead to another one than it did: a call that says whom it is for
is refused by everybody else, whatever it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from common.errors import FailedPrecondition

ADDRESSEE = "slipway-executor-id"
"""The metadata's key. A call without it is meant for whoever answers."""

ANOTHER_EXECUTOR = "ANOTHER_EXECUTOR"
"""Reason of the refusal."""


class AddresseeInterceptor(grpc.aio.ServerInterceptor):
    """Put it after the one that turns errors into statuses and asks whether the caller may. Health and reflection are
    anybody's, who is not to learn from them whose they are."""

    def __init__(self, executor_id: str) -> None:
        self._executor_id = executor_id

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        if handler_call_details.method.startswith("/slipway."):
            for key, value in handler_call_details.invocation_metadata or ():
                if key == ADDRESSEE and value != self._executor_id:
                    return self._refusal(str(value))
        return await continuation(handler_call_details)

    def _refusal(self, meant: str) -> grpc.RpcMethodHandler[Any, Any]:
        error = FailedPrecondition(
            f"the call is meant for the executor {meant[:64]}, and this is {self._executor_id}",
            resource_type="executor",
            resource_name=self._executor_id,
            reason=ANOTHER_EXECUTOR,
        )

        async def refuse(requests: object, context: object) -> AsyncIterator[Any]:
            raise error
            yield  # it makes this a stream, and of those nobody waits for the first request

        return grpc.stream_stream_rpc_method_handler(refuse)
