"""Volumes."""

from __future__ import annotations

from slipway.executor.v1 import volume_store_service_pb2 as pb2

from api_service.executor_client.volumes import CreatedVolume, StoredVolume


def stored_volume_from_proto(message: pb2.StoredVolume) -> StoredVolume:
    return StoredVolume(
        name=message.name, mountpoint=message.mountpoint, options=dict(message.options), size=message.size
    )


def created_volume_from_proto(message: pb2.CreateVolumeResponse) -> CreatedVolume:
    return CreatedVolume(volume=stored_volume_from_proto(message.volume), made=message.made)
