"""The files of containers, as an executor tells of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ChangeKind(StrEnum):
    MODIFIED = "modified"
    ADDED = "added"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """`path` is absolute, inside the container."""

    path: str
    kind: ChangeKind


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStat:
    """`mode` as in inode(7), `modified` in nanoseconds since the epoch; `link_target` is empty for anything but a
    symbolic link."""

    name: str
    size: int
    mode: int
    modified: int
    link_target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveTarget:
    """A directory of a container to unpack into, and how."""

    container_id: str
    path: str
    no_overwrite_dir_non_dir: bool = False
    copy_uid_gid: bool = False
