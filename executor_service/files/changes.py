"""What a container changed of its image's files: its writable layer against the layers below.

overlayfs keeps a 0:0 character device for what was deleted and `trusted.overlay.opaque` on a directory that was
replaced; everything else in the writable layer is new or was changed. As `docker diff` shows it: a file that is below
as well counts as modified, a directory only when it differs itself or something was added to it or deleted from it.
The container may write the layer meanwhile, so it is walked by descriptors; the layers below are ours and do not
change. Blocks. Sources: kernel Documentation/filesystems/overlayfs.rst, moby pkg/archive/changes_linux.go.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from common.errors import FailedPrecondition, ResourceExhausted
from executor_service.kernel import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2

_OPAQUE = "trusted.overlay.opaque"
_MAX_CHANGES = 100_000
_MAX_BYTES = 8 * 1024 * 1024  # of all paths together: they go into one message
_MAX_DEPTH = 512


class ChangeKind(StrEnum):
    MODIFIED = "modified"
    ADDED = "added"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    path: str
    kind: ChangeKind


def changes(upper: Path, lower: Sequence[Path], *, mount_points: Collection[str] = ()) -> list[Change]:
    """In the order of their paths. `lower` is topmost first. `mount_points` are paths where something is mounted while
    the container runs: that the runtime made them is no change. Raises OSError, ResourceExhausted, FailedPrecondition.
    """
    with ExitStack() as opened:

        def directory(path: Path) -> int:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            return descriptor

        search = _Search(lower=[directory(path) for path in lower])
        search.walk(directory(upper))
    kinds = search.found
    _forget_mount_points(kinds, search.touched, mount_points)
    return [Change(path=path.decode(errors="backslashreplace"), kind=kinds[path]) for path in sorted(kinds)]


@dataclass(slots=True)
class _Search:
    """`touched`: directories that count as modified for nothing but what was added to or deleted from them."""

    lower: Sequence[int]
    found: dict[bytes, ChangeKind] = field(default_factory=dict)
    touched: set[bytes] = field(default_factory=set)
    size: int = 0

    def walk(self, upper: int) -> None:
        layers = self._contributing(b"", range(len(self.lower)))
        waiting: list[tuple[int, Iterator[os.DirEntry[str]], bytes, tuple[int, ...]]] = []
        waiting.append((upper, iter(os.scandir(upper)), b"", layers))
        try:
            while waiting:
                directory, entries, path, layers = waiting[-1]
                entry = next(entries, None)
                if entry is None:
                    waiting.pop()
                    if waiting:
                        os.close(directory)
                    continue
                name = os.fsencode(entry.name)
                below = self._take(directory, name, path + b"/" + name, layers)
                if below is not None:
                    if len(waiting) > _MAX_DEPTH:
                        os.close(below[0])
                        raise FailedPrecondition(
                            f"the container nests directories more than {_MAX_DEPTH} deep", reason="TOO_DEEP"
                        )
                    waiting.append((below[0], iter(os.scandir(below[0])), path + b"/" + name, below[1]))
        finally:
            for directory, *_ in waiting[1:]:
                os.close(directory)

    def _take(
        self, directory: int, name: bytes, path: bytes, layers: tuple[int, ...]
    ) -> tuple[int, tuple[int, ...]] | None:
        """A directory to walk next, with the layers that have it."""
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        before = self._below(path, layers)
        if is_whiteout(status):
            if before is not None:
                self._add(path, ChangeKind.DELETED)
            return None
        if before is None:
            self._add(path, ChangeKind.ADDED)
        elif not stat.S_ISDIR(status.st_mode) or _differ(status, before):
            self._add(path, ChangeKind.MODIFIED)
        elif status.st_mtime_ns != before.st_mtime_ns:
            self._touch(path)
        if not stat.S_ISDIR(status.st_mode):
            return None
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            return None  # another thing by now
        contributing = self._contributing(path, layers)
        if is_opaque(descriptor):
            self._add_hidden(descriptor, path, contributing)
        return descriptor, contributing

    def _add_hidden(self, upper: int, path: bytes, layers: tuple[int, ...]) -> None:
        """What a replaced directory had and the one in its place has not."""
        kept = _names(upper)
        for layer in layers:
            descriptor = self._open(layer, path, os.O_RDONLY | os.O_DIRECTORY)
            if descriptor is None:
                continue
            try:
                names = _names(descriptor)
            finally:
                os.close(descriptor)
            for name in names - kept:
                if self._below(path + b"/" + name, layers) is not None:
                    self._add(path + b"/" + name, ChangeKind.DELETED)

    def _add(self, path: bytes, kind: ChangeKind) -> None:
        if path not in self.found:
            self.size += len(path)
        self.found[path] = kind
        self.touched.discard(path)
        parent = path.rpartition(b"/")[0]
        if kind is not ChangeKind.MODIFIED and parent:
            self._touch(parent)
        if len(self.found) > _MAX_CHANGES or self.size > _MAX_BYTES:
            raise ResourceExhausted(
                f"the container changed more than {_MAX_CHANGES} files, too many for one answer; export it instead",
                reason="TOO_MANY_CHANGES",
            )

    def _touch(self, directory: bytes) -> None:
        if directory not in self.found:
            self._add(directory, ChangeKind.MODIFIED)
            self.touched.add(directory)

    def _below(self, path: bytes, layers: tuple[int, ...]) -> os.stat_result | None:
        """What the layers below show at the path; `layers` are those that show its directory, the topmost first."""
        for layer in layers:
            descriptor = self._open(layer, path, os.O_PATH | os.O_NOFOLLOW)
            if descriptor is not None:
                try:
                    status = os.fstat(descriptor)
                finally:
                    os.close(descriptor)
                return None if is_whiteout(status) else status
        return None

    def _contributing(self, path: bytes, layers: Sequence[int]) -> tuple[int, ...]:
        """Those whose directory at the path is seen: down to the first where it is opaque, deleted or no directory."""
        seen: list[int] = []
        for layer in layers:
            descriptor = self._open(layer, path, os.O_PATH | os.O_NOFOLLOW)
            if descriptor is None:
                continue
            try:
                if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    break
                seen.append(layer)
                if is_opaque(descriptor):
                    break
            finally:
                os.close(descriptor)
        return tuple(seen)

    def _open(self, layer: int, path: bytes, flags: int) -> int | None:
        try:
            return openat2(self.lower[layer], path or b".", flags=flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
        except (FileNotFoundError, NotADirectoryError):
            return None


def _names(directory: int) -> set[bytes]:
    with os.scandir(directory) as entries:
        return {os.fsencode(entry.name) for entry in entries}


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(descriptor: int) -> bool:
    try:
        return os.getxattr(f"/proc/self/fd/{descriptor}", _OPAQUE) == b"y"
    except OSError:
        return False


def _differ(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether a directory is another than the one below, but for what is in it."""
    return (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid)


def _forget_mount_points(kinds: dict[bytes, ChangeKind], touched: set[bytes], mount_points: Collection[str]) -> None:
    """Take out empty mount points that were added, the directories made for them alone, and their parents' change."""
    for point in mount_points:
        path = os.fsencode(posixpath.normpath("/" + point.lstrip("/")))
        while kinds.get(path) is ChangeKind.ADDED and not _has_changes_below(kinds, path):
            del kinds[path]
            path = path.rpartition(b"/")[0]
        if path in touched and not any(each.rpartition(b"/")[0] == path for each in kinds):
            del kinds[path]
            touched.discard(path)


def _has_changes_below(kinds: dict[bytes, ChangeKind], path: bytes) -> bool:
    return any(each.startswith(path + b"/") for each in kinds)
