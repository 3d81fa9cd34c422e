"""The files of a node's containers over gRPC."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import grpc
from slipway.executor.v1 import file_service_pb2 as pb2
from slipway.executor.v1.file_service_pb2_grpc import FileServiceStub

from api_service.conversion.executor.files import change_from_proto, stat_from_proto, target_to_proto
from api_service.deadline import Deadline
from api_service.executor_client.files import ArchiveTarget, ContainerFiles, FileChange, PathStat
from api_service.executor_grpc.calls import NodeCalls


class GrpcFiles:
    def __init__(self, channel: grpc.aio.Channel, calls: NodeCalls) -> None:
        self._files = FileServiceStub(channel)
        self._calls = calls

    async def list_changes(self, container_id: str, *, deadline: Deadline) -> Sequence[FileChange]:
        request = pb2.ListChangesRequest(container_id=container_id)
        answer = await self._calls.answer(self._files.ListChanges(request, timeout=deadline.remaining))
        return [change_from_proto(change) for change in answer.changes]

    async def put_archive(self, target: ArchiveTarget, chunks: AsyncIterator[bytes], *, deadline: Deadline) -> None:
        async def requests() -> AsyncIterator[pb2.PutArchiveRequest]:
            yield pb2.PutArchiveRequest(target=target_to_proto(target))
            async for chunk in chunks:
                yield pb2.PutArchiveRequest(chunk=chunk)

        await self._calls.upload(self._files.PutArchive(timeout=deadline.remaining), requests())

    async def get_archive(
        self, container_id: str, path: str, *, deadline: Deadline
    ) -> AsyncGenerator[PathStat | bytes]:
        request = pb2.GetArchiveRequest(container_id=container_id, path=path)
        call = self._files.GetArchive(request, timeout=deadline.remaining)
        with self._calls.stream(call):
            async for message in call:
                if message.HasField("stat"):
                    yield stat_from_proto(message.stat)
                else:
                    yield message.chunk

    async def export_root(self, container_id: str, *, deadline: Deadline) -> AsyncGenerator[bytes]:
        call = self._files.ExportRoot(pb2.ExportRootRequest(container_id=container_id), timeout=deadline.remaining)
        with self._calls.stream(call):
            async for message in call:
                yield message.chunk


_: type[ContainerFiles] = GrpcFiles
