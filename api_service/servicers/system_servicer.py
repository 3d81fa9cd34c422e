"""SystemService: from the message to the operation and back."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator

from slipway.v1 import system_service_pb2 as pb2
from slipway.v1 import system_service_pb2_grpc as pb2_grpc

from api_service.conversion import system as conversion
from api_service.operations.engine import Engine
from api_service.operations.image_usage import image_usage
from api_service.operations.system_events import stream_events
from api_service.operations.system_info import system_disk_usage, system_info, system_version
from api_service.servicers.call import Context, deadline_of, send_headers
from api_service.servicers.long_calls import LongCalls


class SystemServicer(pb2_grpc.SystemServiceServicer):
    def __init__(self, engine: Engine, long_calls: LongCalls) -> None:
        self._engine = engine
        self._long_calls = long_calls

    async def GetVersion(self, request: pb2.GetVersionRequest, context: Context) -> pb2.GetVersionResponse:
        return conversion.versions_to_proto(await system_version(self._engine, deadline=deadline_of(context)))

    async def GetInfo(self, request: pb2.GetInfoRequest, context: Context) -> pb2.GetInfoResponse:
        return conversion.info_to_proto(await system_info(self._engine, deadline=deadline_of(context)))

    async def StreamEvents(
        self, request: pb2.StreamEventsRequest, context: Context
    ) -> AsyncIterator[pb2.StreamEventsResponse]:
        query = conversion.event_query_from_proto(request)
        on_following = functools.partial(send_headers, context)
        followed = stream_events(self._engine, query, on_following=on_following)
        async with self._long_calls.stream(followed) as events:
            async for place, event in events:
                yield conversion.event_to_proto(place, event)

    async def GetDiskUsage(self, request: pb2.GetDiskUsageRequest, context: Context) -> pb2.GetDiskUsageResponse:
        deadline = deadline_of(context)
        usage, warnings = await system_disk_usage(self._engine, deadline=deadline)
        images = await image_usage(self._engine, deadline=deadline)
        return conversion.disk_usage_to_proto(usage, images, warnings)
