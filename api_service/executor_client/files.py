"""The files of containers, as an executor tells of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from api_service.deadline import Deadline


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


class ContainerFiles(Protocol):
    """Every method raises as those of ExecutorClient do, and the errors named with it."""

    async def list_changes(self, container_id: str, *, deadline: Deadline) -> Sequence[FileChange]:
        """In the order of their paths. Raises ResourceExhausted when they are too many for one answer."""

    async def put_archive(self, target: ArchiveTarget, chunks: AsyncIterator[bytes], *, deadline: Deadline) -> None:
        """Unpack it, once it is there whole. Raises NotFound for the path, InvalidArgument, FailedPrecondition,
        ResourceExhausted. What was unpacked before an error stays."""

    def get_archive(self, container_id: str, path: str, *, deadline: Deadline) -> AsyncGenerator[PathStat | bytes]:
        """First what the path is, then a tar archive of it. Raises as `put_archive` does."""

    def export_root(self, container_id: str, *, deadline: Deadline) -> AsyncGenerator[bytes]:
        """The root filesystem as a tar archive, without its mounts."""
