"""A mount of a container, in the executor's own words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
BIND_FLAGS = frozenset({"nodev", "noexec", "nosuid"})


class MountType(StrEnum):
    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"
    IMAGE = "image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """`source`: a path of the node, a volume's name or an image's id. `target`: absolute, inside the container.
    `populate`: fill an empty volume with what the image has there. `options` are those of tmpfs(5) and mount(2), of a
    bind only `BIND_FLAGS`."""

    type: MountType
    source: str
    target: str
    read_only: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    propagation: str = ""
    non_recursive: bool = False
    create_source: bool = False
    populate: bool = False
    subpath: str = ""
    options: tuple[str, ...] = ()
