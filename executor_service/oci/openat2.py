"""openat2(2): opening a path of a container's root filesystem without leaving it through symlinks."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_SYS_OPENAT2 = 437  # the same on every architecture: openat2(2) came after the numbers were unified
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: Path | int, path: str, *, flags: int, follow_symlinks: bool = True) -> int:
    """Open `path` as a process whose root is `root` would, and return the descriptor (close-on-exec).

    With `follow_symlinks` false a symlink anywhere in the path is refused (ELOOP). Blocks; raises OSError.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (0 if follow_symlinks else RESOLVE_NO_SYMLINKS)
    if isinstance(root, int):
        return _openat2(root, path, flags=flags, resolve=resolve)
    directory = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _openat2(directory, path, flags=flags, resolve=resolve)
    finally:
        os.close(directory)


def _openat2(directory: int, path: str, *, flags: int, resolve: int) -> int:
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=0, resolve=resolve)
    descriptor = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path)
    return int(descriptor)
