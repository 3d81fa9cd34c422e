"""Filling an empty volume with what an image has at its place, so that it is either not begun or will be ended.

The tree is copied beside the volume's data first (`fill.tmp`) and gets its name (`fill`) when it is on disk whole. From
there on it can only go forward: its entries are renamed into the data one by one, again after a crash, and never over
an entry that is there. Containers may use the volume meanwhile; nothing is ever written through a path of theirs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from pathlib import Path

from common.errors import Internal
from executor_service.run import run
from executor_service.storage.durable import publish_tree, sync_directory
from executor_service.threads import finish

_libc = ctypes.CDLL(None, use_errno=True)

_TIMEOUT = 600.0  # seconds
_RENAME_NOREPLACE = 1
_DATA, _FILL, _COPY = "_data", "fill", "fill.tmp"


def is_empty(home: Path) -> bool:
    """Whether nothing is in the volume and nothing is on its way. Blocks."""
    with os.scandir(home / _DATA) as entries:
        return next(entries, None) is None and not (home / _FILL).exists()


async def copy_files(source: int, home: Path) -> None:
    """Copy the directory of the descriptor, with owners, modes, times, links, devices and attributes. `cp` follows no
    link below it, and nobody else can reach what it writes. Raises Internal."""
    copy = home / _COPY
    await finish(lambda: _discard(copy))
    argv = ["cp", "--archive", "--one-file-system", "--no-target-directory", f"/proc/self/fd/{source}/.", str(copy)]
    done = await run(argv, timeout=_TIMEOUT, pass_fds=[source])
    if done.returncode != 0:
        await finish(lambda: _discard(copy))
        if os.strerror(errno.ENOSPC) in done.message:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise Internal(f"volume {home.name!r}: the image's files cannot be copied: {done.message[:500]}")
    await finish(lambda: publish_tree(copy, home / _FILL))


def finish_fill(home: Path) -> None:
    """Go on with a fill that was begun; none: nothing happens. Blocks."""
    _discard(home / _COPY)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        source = os.open(home / _FILL, flags)
    except FileNotFoundError:
        return
    try:
        target = os.open(home / _DATA, flags)
        try:
            for name in os.listdir(source):  # noqa: PTH208 - of a descriptor
                _move(source, target, name)
            like = os.fstat(source)
            os.fchown(target, like.st_uid, like.st_gid)
            os.fchmod(target, stat.S_IMODE(like.st_mode))
            os.fsync(target)
        finally:
            os.close(target)
    finally:
        os.close(source)
    _discard(home / _FILL)
    sync_directory(home)


def _move(source: int, target: int, name: str) -> None:
    encoded = os.fsencode(name)
    if _libc.renameat2(source, encoded, target, encoded, ctypes.c_uint(_RENAME_NOREPLACE)) != 0:
        code = ctypes.get_errno()
        if code != errno.EEXIST:  # a container's own is newer than the image's
            raise OSError(code, os.strerror(code), name)


def _discard(path: Path) -> None:
    if path.is_symlink() or path.exists():
        shutil.rmtree(path)
