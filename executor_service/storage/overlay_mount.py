"""Mounting overlayfs with any number of layers at paths of any length.

mount(2) takes one page of options, and `:` `,` `\\` in a path would have to be escaped in them. So each layer is opened
first and named `/proc/self/fd/<n>`: short, plain, and the very directory that was opened. Everything here blocks.
Source: kernel Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from executor_service import kernel

# What an image could try to make use of by attributes in its layers is off, whatever the kernel's defaults are.
_OPTIONS = b"index=off,metacopy=off,redirect_dir=nofollow"
_OPAQUE = "trusted.overlay.opaque"
_MAX_STACKED = 16


def mount_overlay(target: Path, *, lower: Sequence[Path], upper: Path | None, work: Path | None) -> None:
    """Mount `lower` (topmost first, at least one) below `upper` at `target`; without `upper` and `work` it takes two
    layers, and is read-only. Raises OSError."""
    with ExitStack() as opened:

        def named(path: Path) -> bytes:
            descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            opened.callback(os.close, descriptor)
            return b"/proc/self/fd/%d" % descriptor

        options = [b"lowerdir=" + b":".join(map(named, visible(lower) if upper else lower))]
        if upper is not None and work is not None:
            options += [b"upperdir=" + named(upper), b"workdir=" + named(work)]
        options.append(_OPTIONS)
        kernel.mount(source=b"overlay", target=os.fsencode(target), filesystem=b"overlay", data=b",".join(options))


def visible(lower: Sequence[Path]) -> Sequence[Path]:
    """`lower` down to the first layer whose root is opaque: overlayfs itself never asks that of a root."""
    for depth, path in enumerate(lower, start=1):
        try:
            os.getxattr(path, _OPAQUE, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENODATA:
                continue
            raise
        return lower[:depth]
    return lower


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at the directory `path`, by comparing devices: reading mountinfo takes longer the
    more containers there are."""
    try:
        return path.lstat().st_dev != path.parent.lstat().st_dev
    except FileNotFoundError:
        return False


def unmount_all(path: Path) -> None:
    """Unmount whatever is mounted at `path`; what is busy is detached, and goes when its last user does."""
    for _ in range(_MAX_STACKED):
        if not is_mounted(path):
            return
        try:
            kernel.unmount(os.fsencode(path))
        except OSError as error:
            if error.errno == errno.EBUSY:
                kernel.unmount(os.fsencode(path), flags=kernel.MNT_DETACH)
            elif error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
