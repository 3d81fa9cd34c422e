"""The volumes of a node over gRPC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc
from slipway.executor.v1 import volume_store_service_pb2 as pb2
from slipway.executor.v1.volume_store_service_pb2_grpc import VolumeStoreServiceStub

from api_service.conversion.executor.volumes import created_volume_from_proto, stored_volume_from_proto
from api_service.deadline import Deadline
from api_service.executor_client.volumes import CreatedVolume, NodeVolumes, StoredVolume
from api_service.executor_grpc.calls import NodeCalls


class GrpcVolumes:
    def __init__(self, channel: grpc.aio.Channel, calls: NodeCalls) -> None:
        self._volumes = VolumeStoreServiceStub(channel)
        self._calls = calls

    async def create(self, name: str, options: Mapping[str, str], *, deadline: Deadline) -> CreatedVolume:
        request = pb2.CreateVolumeRequest(name=name, options=dict(options))
        answer = await self._calls.answer(self._volumes.CreateVolume(request, timeout=deadline.remaining))
        return created_volume_from_proto(answer)

    async def remove(self, name: str, *, deadline: Deadline) -> int:
        request = pb2.RemoveVolumeRequest(name=name)
        return (await self._calls.answer(self._volumes.RemoveVolume(request, timeout=deadline.remaining))).size

    async def list(self, *, size: bool, deadline: Deadline) -> Sequence[StoredVolume]:
        request = pb2.ListVolumesRequest(size=size)
        answer = await self._calls.answer(self._volumes.ListVolumes(request, timeout=deadline.remaining))
        return [stored_volume_from_proto(volume) for volume in answer.volumes]


_: type[NodeVolumes] = GrpcVolumes
