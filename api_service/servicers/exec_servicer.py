"""ExecService: from the message to the operation and back."""

from __future__ import annotations

from collections.abc import AsyncIterator

from slipway.v1 import exec_service_pb2 as pb2
from slipway.v1 import exec_service_pb2_grpc as pb2_grpc

from api_service.conversion import streams as conversion
from api_service.conversion.console_size import size_from_proto
from api_service.operations.engine import Engine
from api_service.operations.exec_create import create_exec
from api_service.operations.exec_start import start_exec
from api_service.operations.terminal_resize import resize_exec
from api_service.servicers.call import Context
from api_service.servicers.long_calls import LongCalls
from api_service.servicers.streams import first_with


class ExecServicer(pb2_grpc.ExecServiceServicer):
    def __init__(self, engine: Engine, long_calls: LongCalls) -> None:
        self._engine = engine
        self._long_calls = long_calls

    async def CreateExec(self, request: pb2.CreateExecRequest, context: Context) -> pb2.CreateExecResponse:
        config = conversion.exec_config_from_proto(request.config)
        return pb2.CreateExecResponse(id=(await create_exec(self._engine, request.container, config)).id)

    async def StartExec(
        self, request_iterator: AsyncIterator[pb2.StartExecRequest], context: Context
    ) -> AsyncIterator[pb2.StartExecResponse]:
        with self._long_calls.waiting():
            start = conversion.exec_start_from_proto((await first_with(request_iterator, "start")).start)
        started = start_exec(self._engine, start, conversion.typed(request_iterator))
        async with self._long_calls.stream(started) as answers:
            async for answer in answers:
                yield conversion.exec_answer_to_proto(answer)

    async def InspectExec(self, request: pb2.InspectExecRequest, context: Context) -> pb2.InspectExecResponse:
        return pb2.InspectExecResponse(exec=conversion.exec_to_proto(await self._engine.execs.find(request.exec)))

    async def ResizeExecTty(self, request: pb2.ResizeExecTtyRequest, context: Context) -> pb2.ResizeExecTtyResponse:
        await resize_exec(self._engine, request.exec, size_from_proto(request.size))
        return pb2.ResizeExecTtyResponse()
