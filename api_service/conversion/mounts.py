"""Between the messages about mounts and the records."""

from __future__ import annotations

from slipway.v1 import mount_pb2 as pb2

from api_service.records.mount import BindOptions, ImageOptions, Mount, TmpfsOptions, VolumeDriver, VolumeOptions


def mount_from_proto(message: pb2.Mount) -> Mount:
    bind, volume, tmpfs = message.bind_options, message.volume_options, message.tmpfs_options
    return Mount(
        type=message.type,
        source=message.source,
        target=message.target,
        read_only=message.read_only,
        bind_options=BindOptions(
            propagation=bind.propagation,
            non_recursive=bind.non_recursive,
            create_mountpoint=bind.create_mountpoint,
            read_only_non_recursive=bind.read_only_non_recursive,
            read_only_force_recursive=bind.read_only_force_recursive,
        )
        if message.HasField("bind_options")
        else None,
        volume_options=VolumeOptions(
            no_copy=volume.no_copy,
            labels=dict(volume.labels),
            driver_config=driver_from_proto(volume.driver_config),
            subpath=volume.subpath,
        )
        if message.HasField("volume_options")
        else None,
        tmpfs_options=TmpfsOptions(size_bytes=tmpfs.size_bytes, mode=tmpfs.mode, options=tuple(tmpfs.options))
        if message.HasField("tmpfs_options")
        else None,
        image_options=ImageOptions(subpath=message.image_options.subpath)
        if message.HasField("image_options")
        else None,
    )


def mount_to_proto(mount: Mount) -> pb2.Mount:
    message = pb2.Mount(type=mount.type, source=mount.source, target=mount.target, read_only=mount.read_only)
    if (bind := mount.bind_options) is not None:
        message.bind_options.CopyFrom(
            pb2.BindOptions(
                propagation=bind.propagation,
                non_recursive=bind.non_recursive,
                create_mountpoint=bind.create_mountpoint,
                read_only_non_recursive=bind.read_only_non_recursive,
                read_only_force_recursive=bind.read_only_force_recursive,
            )
        )
    if (volume := mount.volume_options) is not None:
        message.volume_options.CopyFrom(
            pb2.VolumeOptions(
                no_copy=volume.no_copy,
                labels=dict(volume.labels),
                driver_config=driver_to_proto(volume.driver_config),
                subpath=volume.subpath,
            )
        )
    if (tmpfs := mount.tmpfs_options) is not None:
        message.tmpfs_options.CopyFrom(
            pb2.TmpfsOptions(size_bytes=tmpfs.size_bytes, mode=tmpfs.mode, options=tmpfs.options)
        )
    if mount.image_options is not None:
        message.image_options.CopyFrom(pb2.ImageOptions(subpath=mount.image_options.subpath))
    return message


def driver_from_proto(message: pb2.VolumeDriver) -> VolumeDriver:
    return VolumeDriver(name=message.name, options=dict(message.options))


def driver_to_proto(driver: VolumeDriver) -> pb2.VolumeDriver:
    return pb2.VolumeDriver(name=driver.name, options=dict(driver.options))
