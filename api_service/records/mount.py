"""What is mounted in a container: as asked for at create, and as it was resolved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

DEFAULT_VOLUME_DRIVER = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class BindOptions:
    """`propagation`: empty means the default, `rprivate`."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeDriver:
    """`name`: empty means `local`; `options` are `type`, `o` and `device` of mount(8)."""

    name: str = ""
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeOptions:
    no_copy: bool = False
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    driver_config: VolumeDriver = dataclasses.field(default_factory=VolumeDriver)
    subpath: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsOptions:
    """`size_bytes` and `mode`: 0 means the default."""

    size_bytes: int = 0
    mode: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    subpath: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mount as it was asked for. Options of another type than `type` are None in a valid one."""

    type: str
    source: str = ""
    target: str = ""
    read_only: bool = False
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


class MountType(StrEnum):
    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"
    IMAGE = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountPoint:
    """A mount of a container, whatever it was asked for by (binds, mounts, tmpfs, volumes, volumes_from).

    `source`: the path on the node, the volume's name or the image's id. `options` are tmpfs(5)'s. `mode` is what a bind
    string said. `anonymous`: a volume made without being named. `field`: what the request asked for it by, for example
    `host_config.binds[0]`.
    """

    type: MountType
    source: str
    destination: str
    mode: str = ""
    read_only: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    propagation: str = ""
    non_recursive: bool = False
    create_source: bool = False
    populate: bool = False
    subpath: str = ""
    options: tuple[str, ...] = ()
    anonymous: bool = False
    field: str = ""
