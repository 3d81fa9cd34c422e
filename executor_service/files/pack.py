"""A file or a tree of a container as a tar stream, the way Docker makes it.

Every thing is opened by its name in its directory's descriptor, looked at, and read through what was opened, so what a
running container swaps meanwhile is either packed or not, and never followed. Sockets are left out; a second name of a
file is a hard link; file systems that show the kernel's state are packed as the empty directories they cover. Blocks.
Source: moby pkg/archive, tar(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from common.errors import FailedPrecondition
from executor_service.files.owners import AS_THEY_ARE, Owners
from executor_service.files.resolve import is_kernels_own, reopen
from executor_service.storage import tar_writer
from executor_service.storage.tar_reader import Entry, Kind

_READ = 256 * 1024  # bytes
_MAX_DEPTH = 512  # directories, two descriptors each
_MAX_LINKED = 100_000  # files whose other names are looked for; beyond it each name is a file of its own
_BILLION = 1_000_000_000
_CAPABILITY = "security.capability"
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}


@dataclass(slots=True)
class _Level:
    """A directory being packed. `name` is its own in the archive, empty for a root that has none."""

    descriptor: int
    entries: Iterator[os.DirEntry[str]]
    name: bytes
    device: int


class TreePacker:
    """Packs one tree into `sink`, the end of the archive included."""

    def __init__(self, sink: Callable[[bytes], object], *, owners: Owners = AS_THEY_ARE) -> None:
        self._sink = sink
        self._owners = owners
        self._levels: list[_Level] = []
        self._linked: dict[tuple[int, int], bytes] = {}

    def pack(self, descriptor: int, name: bytes) -> None:
        """What the O_PATH `descriptor` stands for, as `name`; a directory with the name b"" is packed without itself.

        Raises OSError, FailedPrecondition for a tree that is too deep, and what `sink` raises.
        """
        try:
            self._take(descriptor, name, parent_device=None)
            while self._levels:
                self._step(self._levels[-1])
        finally:
            while self._levels:
                self._leave()
        self._sink(tar_writer.END)

    def _step(self, level: _Level) -> None:
        entry = next(level.entries, None)
        if entry is None:
            self._leave()
            return
        base = os.fsencode(entry.name)
        try:
            descriptor = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=level.descriptor)
        except FileNotFoundError:
            return  # gone since it was listed
        try:
            self._take(descriptor, level.name + b"/" + base if level.name else base, parent_device=level.device)
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int, name: bytes, *, parent_device: int | None) -> None:
        status = os.fstat(descriptor)
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        if kind is Kind.DIRECTORY:
            self._take_directory(descriptor, name, status, parent_device)
        elif (first := self._first_name(status, name)) is not None:
            self._sink(tar_writer.header(self._entry(status, name, Kind.HARDLINK, link=first)))
        elif kind is Kind.FILE:
            self._take_file(descriptor, name, status)
        else:
            link = os.readlink(b"", dir_fd=descriptor) if kind is Kind.SYMLINK else b""
            self._sink(tar_writer.header(self._entry(status, name, kind, link=link)))

    def _take_directory(self, path: int, name: bytes, status: os.stat_result, parent_device: int | None) -> None:
        covered = status.st_dev != parent_device and is_kernels_own(path)
        if len(self._levels) >= _MAX_DEPTH:
            raise FailedPrecondition(
                f"{name[:80].decode(errors='backslashreplace')!r}...: directories are nested more than {_MAX_DEPTH} "
                "deep; copy a part of them",
                reason="TOO_DEEP",
            )
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=path)
        try:
            if name:
                self._sink(
                    tar_writer.header(self._entry(status, name, Kind.DIRECTORY, xattrs=self._attributes(descriptor)))
                )
            entries: Iterator[os.DirEntry[str]] = iter(()) if covered else os.scandir(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._levels.append(_Level(descriptor=descriptor, entries=entries, name=name, device=status.st_dev))

    def _take_file(self, path: int, name: bytes, status: os.stat_result) -> None:
        descriptor = reopen(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            # As large as it was opened: what is appended meanwhile is left out, what is cut off is zeros.
            status = os.fstat(descriptor)
            self._sink(
                tar_writer.header(
                    self._entry(status, name, Kind.FILE, size=status.st_size, xattrs=self._attributes(descriptor))
                )
            )
            left = status.st_size
            while left:
                data = os.read(descriptor, min(left, _READ)) or bytes(min(left, _READ))
                self._sink(data)
                left -= len(data)
            self._sink(tar_writer.padding(status.st_size))
        finally:
            os.close(descriptor)

    def _first_name(self, status: os.stat_result, name: bytes) -> bytes | None:
        if status.st_nlink < 2:
            return None
        inode = (status.st_dev, status.st_ino)
        if (first := self._linked.get(inode)) is not None:
            return first
        if len(self._linked) < _MAX_LINKED:
            self._linked[inode] = name
        return None

    def _leave(self) -> None:
        level = self._levels.pop()
        close = getattr(level.entries, "close", None)
        if close is not None:
            close()
        os.close(level.descriptor)

    def _entry(
        self,
        status: os.stat_result,
        name: bytes,
        kind: Kind,
        *,
        link: bytes = b"",
        size: int = 0,
        xattrs: Mapping[bytes, bytes] | None = None,
    ) -> Entry:
        device = kind in (Kind.CHARACTER, Kind.BLOCK)
        uid, gid = self._owners.inside(status.st_uid, status.st_gid)
        return Entry(
            name=name,
            kind=kind,
            link=link,
            mode=stat.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            size=size,
            mtime=divmod(max(status.st_mtime_ns, 0), _BILLION),
            major=os.major(status.st_rdev) if device else 0,
            minor=os.minor(status.st_rdev) if device else 0,
            xattrs=xattrs or {},
        )

    def _attributes(self, descriptor: int) -> dict[bytes, bytes]:
        """File capabilities and the user's own attributes."""
        found: dict[bytes, bytes] = {}
        try:
            for name in os.listxattr(descriptor):
                if name == _CAPABILITY:
                    found[os.fsencode(name)] = self._owners.capability_inside(os.getxattr(descriptor, name))
                elif name.startswith("user."):
                    found[os.fsencode(name)] = os.getxattr(descriptor, name)
        except OSError:
            return found  # a file system without attributes, or one that was removed since it was listed
        return found
