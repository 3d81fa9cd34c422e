"""What a call of an executor says before it asks for anything: which executor it is meant for, as an address may lead
to another one than it did, and which protocol the caller speaks, as the executor may have another version than it had.
An executor that cannot take a call by its terms refuses it, whatever it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from common.errors import FailedPrecondition, SlipwayError
from common.protocol_version import NODE_INCOMPATIBLE, OURS, ProtocolRange
from common.version import VERSION

ADDRESSEE = "slipway-executor-id"
"""The metadata's key. A call without it is meant for whoever answers."""

SPOKEN = "slipway-protocol"
"""The metadata's key, of a `ProtocolRange` as it is written. A call without it is taken as it is."""

ANOTHER_EXECUTOR = "ANOTHER_EXECUTOR"
"""Reason of the refusal."""

_TELLS_ITS_VERSION = "/slipway.executor.v1.NodeService/GetNode"


class TermsInterceptor(grpc.aio.ServerInterceptor):
    """Put it after the one that turns errors into statuses and asks whether the caller may. Health and reflection are
    anybody's, who is not to learn from them whose they are."""

    def __init__(self, executor_id: str, *, protocol: ProtocolRange = OURS) -> None:
        self._executor_id = executor_id
        self._protocol = protocol

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = handler_call_details.method
        if method.startswith("/slipway."):
            for key, value in handler_call_details.invocation_metadata or ():
                if key == ADDRESSEE and value != self._executor_id:
                    return _refusal(self._another(str(value)))
                if key == SPOKEN and method != _TELLS_ITS_VERSION and not self._speaks(str(value)):
                    return _refusal(self._incompatible(str(value)))
        return await continuation(handler_call_details)

    def _speaks(self, written: str) -> bool:
        return written == self._protocol.written or ProtocolRange.read(written).meets(self._protocol)

    def _another(self, meant: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"the call is meant for the executor {meant[:64]}, and this is {self._executor_id}",
            resource_type="executor",
            resource_name=self._executor_id,
            reason=ANOTHER_EXECUTOR,
        )

    def _incompatible(self, written: str) -> FailedPrecondition:
        return FailedPrecondition(
            f"this executor {VERSION} speaks protocol {self._protocol}, and who calls it {ProtocolRange.read(written)}",
            resource_type="executor",
            resource_name=self._executor_id,
            reason=NODE_INCOMPATIBLE,
            metadata={"executor_version": VERSION, "executor_protocol": self._protocol.written},
        )


def _refusal(error: SlipwayError) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(requests: object, context: object) -> AsyncIterator[Any]:
        raise error
        yield  # it makes this a stream, and of those nobody waits for the first request

    return grpc.stream_stream_rpc_method_handler(refuse)
