"""`slipway.executor.v1.VolumeStoreService`."""

from __future__ import annotations

from typing import Any

import grpc
from slipway.executor.v1 import volume_store_service_pb2 as pb
from slipway.executor.v1 import volume_store_service_pb2_grpc

from executor_service.node import Node
from executor_service.operations.volume_store import volume_create, volume_remove
from executor_service.storage.volumes import StoredVolume
from executor_service.tasks import Operations

_Context = grpc.aio.ServicerContext[Any, Any]


class VolumeStoreServicer(volume_store_service_pb2_grpc.VolumeStoreServiceServicer):
    def __init__(self, node: Node, operations: Operations) -> None:
        self._node = node
        self._operations = operations

    async def CreateVolume(self, request: pb.CreateVolumeRequest, context: _Context) -> pb.CreateVolumeResponse:
        create = volume_create(self._node, request.name, dict(request.options))
        created = await self._operations.run(create, abandoned="finish")
        return pb.CreateVolumeResponse(volume=_to_proto(created.volume), made=created.made)

    async def RemoveVolume(self, request: pb.RemoveVolumeRequest, context: _Context) -> pb.RemoveVolumeResponse:
        size = await self._operations.run(volume_remove(self._node, request.name), abandoned="finish")
        return pb.RemoveVolumeResponse(size=size)

    async def ListVolumes(self, request: pb.ListVolumesRequest, context: _Context) -> pb.ListVolumesResponse:
        volumes = await self._node.seams.volumes.list(size=request.size)
        return pb.ListVolumesResponse(volumes=[_to_proto(volume) for volume in volumes])


def _to_proto(volume: StoredVolume) -> pb.StoredVolume:
    return pb.StoredVolume(
        name=volume.name, mountpoint=str(volume.mountpoint), options=dict(volume.options), size=volume.size
    )
