"""Mounts as descriptors: a copy of what is mounted at an open file, changed unseen, then put in its place.

Whoever exchanges a path for a symlink in between changes nothing: the copy is of the file that was opened. Everything
here blocks. Source: open_tree(2), move_mount(2), mount_setattr(2), setns(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

# The same numbers on every architecture.
_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_MOUNT_SETATTR = 442

_OPEN_TREE_CLONE = 1
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOUNT_ATTR_RDONLY = 0x1
_MOUNT_ATTR_IDMAP = 0x00100000
_MS_PRIVATE = 1 << 18
_AT_FDCWD = -100

_CLONE_FS = 0x00000200
_CLONE_NEWNS = 0x00020000


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


def copy_tree(descriptor: int, *, recursive: bool) -> int:
    """A copy of what is mounted at `descriptor` (any descriptor of a file or directory), attached nowhere: it is gone
    when the returned descriptor is closed. It belongs to the peer groups of the original. Raises OSError."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    tree = _libc.syscall(ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_int(descriptor), b"", ctypes.c_uint(flags))
    return int(_checked(tree, "copy a mount"))


def attach_tree(tree: int, target: Path) -> None:
    """Mount the copy at `target`, which is a directory if the copy's root is one, and else a file."""
    _checked(
        _libc.syscall(
            ctypes.c_long(_SYS_MOVE_MOUNT),
            *(ctypes.c_int(tree), b"", ctypes.c_int(_AT_FDCWD), os.fsencode(target)),
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        ),
        f"mount at {target}",
    )


def make_read_only(tree: int, *, recursive: bool) -> None:
    """Raises OSError, ENOSYS before Linux 5.12."""
    _set(tree, _MountAttributes(_MOUNT_ATTR_RDONLY, 0, 0, 0), "make a mount read-only", recursive=recursive)


def map_owners(tree: int, users: int, *, recursive: bool) -> None:
    """Show the owners of the copy's files as the user namespace `users` (a descriptor) maps them, and let no mount come
    from the original. Raises OSError, EINVAL when the file system cannot."""
    _set(
        tree,
        _MountAttributes(_MOUNT_ATTR_IDMAP, 0, _MS_PRIVATE, users),
        "map the owners of a mount",
        recursive=recursive,
    )


def _set(tree: int, attributes: _MountAttributes, what: str, *, recursive: bool) -> None:
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        *(ctypes.c_int(tree), b"", ctypes.c_uint(_AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0))),
        *(ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes))),
    )
    _checked(result, what)


@cache
def recursive_read_only() -> bool:
    """Whether the kernel has mount_setattr(2)."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_int(-1), b"", ctypes.c_uint(0), None, ctypes.c_size_t(0)
    )
    return not (result < 0 and ctypes.get_errno() == errno.ENOSYS)


def enter_mounts(namespace: int) -> None:
    """Move the calling thread, and no other, into a mount namespace. It is then of no use for other work."""
    # A thread that shares its root and working directory with others cannot move.
    _checked(_libc.unshare(ctypes.c_int(_CLONE_FS)), "unshare(CLONE_FS)")
    _checked(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(_CLONE_NEWNS)), "enter the mount namespace")


@dataclass(frozen=True, slots=True)
class Propagation:
    """Of the mount that a file is on, see mount_namespaces(7)."""

    mount_point: str
    shared: bool
    slave: bool


def propagation_of(descriptor: int) -> Propagation:
    """As the calling thread's mount namespace has it."""
    information = Path(f"/proc/thread-self/fdinfo/{descriptor}").read_text()
    mount_id = next(line.split()[1] for line in information.splitlines() if line.startswith("mnt_id:"))
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[0] == mount_id:
            optional = fields[6 : fields.index("-")]
            return Propagation(
                mount_point=fields[4],
                shared=any(each.startswith("shared:") for each in optional),
                slave=any(each.startswith("master:") for each in optional),
            )
    raise OSError(errno.ENOENT, "the mount is not in this namespace")


def mounted_below(directory: Path) -> list[Path]:
    """Mount points below `directory` in this namespace."""
    found = []
    for line in Path("/proc/thread-self/mountinfo").read_text().splitlines():
        point = Path(line.split(" ", 5)[4].encode().decode("unicode_escape"))
        if directory in point.parents:
            found.append(point)
    return found


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result
