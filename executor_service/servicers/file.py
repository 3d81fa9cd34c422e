"""`slipway.executor.v1.FileService`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from slipway.executor.v1 import file_service_pb2 as pb
from slipway.executor.v1 import file_service_pb2_grpc

from common.errors import InvalidArgument, Violation
from executor_service.conversion.files import change_to_proto, stat_to_proto
from executor_service.files.resolve import PathStat
from executor_service.files.unpack import UnpackRules
from executor_service.node import Node
from executor_service.operations.file_changes import file_changes
from executor_service.operations.file_get import file_export, file_get
from executor_service.operations.file_put import file_put
from executor_service.tasks import Operations

_Context = grpc.aio.ServicerContext[Any, Any]


class FileServicer(file_service_pb2_grpc.FileServiceServicer):
    def __init__(self, node: Node, operations: Operations) -> None:
        self._node = node
        self._operations = operations

    async def ListChanges(self, request: pb.ListChangesRequest, context: _Context) -> pb.ListChangesResponse:
        changes = await file_changes(self._node, request.container_id)
        return pb.ListChangesResponse(changes=[change_to_proto(change) for change in changes])

    async def PutArchive(
        self, request_iterator: AsyncIterator[pb.PutArchiveRequest], context: _Context
    ) -> pb.PutArchiveResponse:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("request") != "target":
            raise InvalidArgument(violations=[Violation(field="target", description="must be the first message")])
        target = first.target
        rules = UnpackRules(no_overwrite_dir_non_dir=target.no_overwrite_dir_non_dir, copy_uid_gid=target.copy_uid_gid)
        chunks = (_chunk(request) async for request in requests)
        put = file_put(self._node, chunks, container_id=target.container_id, path=target.path, rules=rules)
        await self._operations.run(put, abandoned="cancel")
        return pb.PutArchiveResponse()

    async def GetArchive(
        self, request: pb.GetArchiveRequest, context: _Context
    ) -> AsyncIterator[pb.GetArchiveResponse]:
        pieces = file_get(self._node, container_id=request.container_id, path=request.path)
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, PathStat):
                    yield pb.GetArchiveResponse(stat=stat_to_proto(piece))
                else:
                    yield pb.GetArchiveResponse(chunk=piece)

    async def ExportRoot(
        self, request: pb.ExportRootRequest, context: _Context
    ) -> AsyncIterator[pb.ExportRootResponse]:
        async with aclosing(file_export(self._node, request.container_id)) as chunks:
            async for chunk in chunks:
                yield pb.ExportRootResponse(chunk=chunk)


def _chunk(request: pb.PutArchiveRequest) -> bytes:
    if request.WhichOneof("request") == "target":
        raise InvalidArgument(violations=[Violation(field="target", description="must not come twice")])
    return request.chunk
