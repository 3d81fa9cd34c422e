"""Between the messages about volumes and the records."""

from __future__ import annotations

from slipway.v1 import mount_pb2
from slipway.v1 import volume_service_pb2 as pb2

from api_service.conversion.mounts import driver_from_proto
from api_service.conversion.times import timestamp
from api_service.operations.volume_create import VolumeRequest
from api_service.operations.volume_list import ShownVolume, VolumeFilter


def volume_request_from_proto(message: pb2.CreateVolumeRequest) -> VolumeRequest:
    return VolumeRequest(
        name=message.name,
        driver=driver_from_proto(message.driver),
        labels=dict(message.labels),
        node=message.node,
    )


def volume_filter_from_proto(message: pb2.ListVolumesRequest) -> VolumeFilter:
    return VolumeFilter(
        names=tuple(message.name),
        labels=tuple(message.label),
        used=message.used if message.HasField("used") else None,
    )


def volume_to_proto(shown: ShownVolume) -> pb2.Volume:
    volume = shown.volume
    return pb2.Volume(
        name=volume.name,
        driver=mount_pb2.VolumeDriver(name=volume.driver, options=dict(volume.options)),
        labels=dict(volume.labels),
        created_at=timestamp(volume.created_at),
        mountpoint=volume.mountpoint,
        node=volume.node,
        anonymous=volume.anonymous,
        used_by=shown.used_by,
    )
