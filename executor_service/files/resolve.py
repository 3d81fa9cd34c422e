"""Paths inside a container to descriptors.

openat2(2) resolves each in one call as a process of the container would see it: absolute links and `..` stay inside its
root, and the magic links of /proc lead nowhere. What comes back is the very thing that was found, whatever is put in
its place afterwards. Everything here blocks.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from common.errors import FailedPrecondition
from executor_service.files.refusals import not_a_directory
from executor_service.kernel import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, filesystem_type, openat2

# include/uapi/linux/magic.h: what these show is the kernel's own state, not files.
_KERNELS_OWN = frozenset(
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x19800202,  # mqueue
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStat:
    """`name` is the last part of the path asked for, `mode` is inode(7)'s, `modified` nanoseconds since the epoch;
    `link_target` is empty for anything but a symbolic link."""

    name: str
    size: int
    mode: int
    modified: int
    link_target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`descriptor` is an O_PATH one; `member` is what the thing is called in an archive of it."""

    descriptor: int
    stat: PathStat
    member: bytes


@contextmanager
def found(root: int, path: str) -> Iterator[Found]:
    """What `path` means in the root, a symbolic link at its end as the link itself, unless a `/` or `/.` follows it.

    Raises OSError, InvalidArgument when a directory is meant and there is none, FailedPrecondition below /proc.
    """
    path = _plain(path)
    directory = path.endswith(("/", "/."))
    flags = os.O_PATH | (os.O_DIRECTORY if directory else os.O_NOFOLLOW)
    descriptor = _open(root, path, flags)
    try:
        _refuse_kernels_own(descriptor, path)
        status = os.fstat(descriptor)
        link = os.readlink(b"", dir_fd=descriptor) if stat.S_ISLNK(status.st_mode) else b""
        name = path.rstrip("/").rpartition("/")[2]
        described = PathStat(
            name=name or "/",
            size=status.st_size,
            mode=status.st_mode,
            modified=status.st_mtime_ns,
            link_target=link.decode(errors="backslashreplace"),
        )
        yield Found(descriptor=descriptor, stat=described, member=os.fsencode(name) or b".")
    finally:
        os.close(descriptor)


@contextmanager
def target_directory(root: int, path: str) -> Iterator[int]:
    """A directory to unpack into, links followed. Raises as `found` does."""
    descriptor = _open(root, _plain(path), os.O_PATH | os.O_DIRECTORY)
    try:
        _refuse_kernels_own(descriptor, path)
        yield descriptor
    finally:
        os.close(descriptor)


def is_kernels_own(descriptor: int) -> bool:
    """Whether the descriptor is on a file system that shows the kernel's state."""
    return filesystem_type(descriptor) in _KERNELS_OWN


def reopen(descriptor: int, flags: int) -> int:
    """Open what an O_PATH descriptor stands for: this inode, not whatever has its name by now."""
    return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)


def _plain(path: str) -> str:
    """`.` and `..` taken out as text, as Docker does, but for the `/` or `/.` at the end, which means a directory."""
    plain = posixpath.normpath("/" + path.lstrip("/"))
    if plain == "/":
        return plain
    return plain + next((end for end in ("/", "/.") if path.endswith(end)), "")


def _open(root: int, path: str, flags: int) -> int:
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    try:
        return openat2(root, os.fsencode(path), flags=flags, resolve=resolve)
    except NotADirectoryError as error:
        if not flags & os.O_DIRECTORY:
            raise
        raise not_a_directory(path) from error


def _refuse_kernels_own(descriptor: int, path: str) -> None:
    if is_kernels_own(descriptor):
        raise FailedPrecondition(
            f"{path!r} is on a file system of the kernel's, such as /proc; it has no files to copy",
            resource_type="path",
            resource_name=path,
            reason="NOT_FILES",
        )
