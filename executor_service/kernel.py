"""The few system calls Python does not wrap: mount(2), umount2(2), openat2(2), syncfs(2), fstatfs(2),
quotactl_fd(2). All of them block."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

# include/uapi/linux/openat2.h
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# include/uapi/linux/mount.h, include/linux/fs.h
MNT_DETACH = 0x2
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
UMOUNT_NOFOLLOW = 0x8

_STATFS_SIZE = 256  # bytes, more than struct statfs has anywhere; it begins with the type, a long

# The same numbers on every architecture.
_SYS_OPENAT2 = 437
_SYS_QUOTACTL_FD = 443

# include/uapi/linux/quota.h
_Q_GETINFO = 0x800005
_PRJQUOTA = 2
_DQINFO_SIZE = 24  # bytes of struct if_dqinfo


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: bytes, *, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below the descriptor `directory` and return a close-on-exec descriptor. Raises OSError (ELOOP: a
    symlink where `resolve` forbids one)."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    descriptor: int = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(directory),
        ctypes.c_char_p(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if descriptor < 0:
        raise _last_error(path)
    return descriptor


def mount(*, source: bytes, target: bytes, filesystem: bytes, data: bytes, flags: int = 0) -> None:
    """mount(2). `data` is cut by the kernel at one page, so longer is refused here with E2BIG."""
    if len(data) >= os.sysconf("SC_PAGE_SIZE"):
        raise OSError(7, "mount options are longer than a page", os.fsdecode(target))
    if _libc.mount(source, target, filesystem, ctypes.c_ulong(flags), data) != 0:
        raise _last_error(target)


def unmount(target: bytes, *, flags: int = 0) -> None:
    """umount2(2), never through a symlink."""
    if _libc.umount2(target, ctypes.c_int(flags | UMOUNT_NOFOLLOW)) != 0:
        raise _last_error(target)


def mount_on_itself(directory: bytes) -> None:
    """Make a directory a mount of its own, which shares with no other what will be mounted in it. Raises OSError."""
    mount(source=directory, target=directory, filesystem=b"", data=b"", flags=_MS_BIND)
    mount(source=b"none", target=directory, filesystem=b"", data=b"", flags=_MS_PRIVATE)


def detach_tree(target: bytes) -> None:
    """Unmount what is mounted at `target` with all that is mounted below it, here and nowhere else: a copy of a shared
    mount would take the original's mounts along. Raises OSError, EINVAL when nothing is mounted there."""
    mount(source=b"none", target=target, filesystem=b"", data=b"", flags=_MS_REC | _MS_PRIVATE)
    unmount(target, flags=MNT_DETACH)


def sync_filesystem(descriptor: int) -> None:
    """syncfs(2): everything written to the file system `descriptor` is on, on disk."""
    if _libc.syncfs(ctypes.c_int(descriptor)) != 0:
        raise _last_error(b"syncfs")


def filesystem_type(descriptor: int) -> int:
    """fstatfs(2): the magic number of the file system `descriptor` is on (include/uapi/linux/magic.h)."""
    buffer = ctypes.create_string_buffer(_STATFS_SIZE)
    if _libc.fstatfs(ctypes.c_int(descriptor), buffer) != 0:
        raise _last_error(b"fstatfs")
    return ctypes.c_ulong.from_buffer(buffer).value


def query_project_quota(descriptor: int) -> None:
    """quotactl_fd(2), Q_GETINFO: whether project quotas are on for the file system `descriptor` is on. Raises OSError:
    ENOSYS when the kernel has no quotas, ESRCH when they are off there."""
    command = ctypes.c_uint(_Q_GETINFO << 8 | _PRJQUOTA)
    info = ctypes.create_string_buffer(_DQINFO_SIZE)
    if _libc.syscall(ctypes.c_long(_SYS_QUOTACTL_FD), ctypes.c_int(descriptor), command, ctypes.c_int(0), info) != 0:
        raise _last_error(b"quotactl")


def _last_error(path: bytes) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code), os.fsdecode(path))
