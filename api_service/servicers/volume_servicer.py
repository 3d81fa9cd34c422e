"""VolumeService: from the message to the operation and back."""

from __future__ import annotations

from slipway.v1 import volume_service_pb2 as pb2
from slipway.v1 import volume_service_pb2_grpc as pb2_grpc

from api_service.conversion import volume as conversion
from api_service.operations.engine import Engine
from api_service.operations.volume_create import create_volume
from api_service.operations.volume_list import inspect_volume, list_volumes, shown_volume
from api_service.operations.volume_remove import prune_volumes, remove_volume
from api_service.servicers.call import Context, deadline_of


class VolumeServicer(pb2_grpc.VolumeServiceServicer):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def CreateVolume(self, request: pb2.CreateVolumeRequest, context: Context) -> pb2.CreateVolumeResponse:
        asked = conversion.volume_request_from_proto(request)
        volume = await create_volume(self._engine, asked, deadline=deadline_of(context))
        return pb2.CreateVolumeResponse(volume=conversion.volume_to_proto(await shown_volume(self._engine, volume)))

    async def InspectVolume(self, request: pb2.InspectVolumeRequest, context: Context) -> pb2.InspectVolumeResponse:
        volume = await inspect_volume(self._engine, request.volume)
        return pb2.InspectVolumeResponse(volume=conversion.volume_to_proto(volume))

    async def ListVolumes(self, request: pb2.ListVolumesRequest, context: Context) -> pb2.ListVolumesResponse:
        volumes = await list_volumes(self._engine, conversion.volume_filter_from_proto(request))
        return pb2.ListVolumesResponse(volumes=[conversion.volume_to_proto(volume) for volume in volumes])

    async def RemoveVolume(self, request: pb2.RemoveVolumeRequest, context: Context) -> pb2.RemoveVolumeResponse:
        await remove_volume(self._engine, request.volume, force=request.force, deadline=deadline_of(context))
        return pb2.RemoveVolumeResponse()

    async def PruneVolumes(self, request: pb2.PruneVolumesRequest, context: Context) -> pb2.PruneVolumesResponse:
        deadline = deadline_of(context)
        pruned = await prune_volumes(
            self._engine, all_of_them=request.all, labels=tuple(request.label), deadline=deadline
        )
        return pb2.PruneVolumesResponse(volumes=pruned.names, space_reclaimed=pruned.space_reclaimed)
