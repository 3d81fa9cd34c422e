"""Docker's init layer: the skeleton every container finds, between its image and its own writable layer.

It depends on the image's layers alone, so it is made once per image, by mounting those layers with the init layer as
their writable one (overlayfs then copies `/etc`'s owner and mode up, as Docker relies on too), and shared. Whatever
the image has already stays; nothing is made below a symlink or a file of the image's. Source: moby
daemon/initlayer/setup_unix.go.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from executor_service.kernel import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2
from executor_service.storage.overlay_mount import mount_overlay, unmount_all

_DIRECTORIES = ("dev/pts", "dev/shm", "proc", "sys")
_FILES = (".dockerenv", "etc/resolv.conf", "etc/hosts", "etc/hostname", "dev/console")
_SYMLINKS = (("etc/mtab", "/proc/mounts"),)


def init_layer_name(diff_ids: Sequence[str]) -> str:
    """The layer store's name for the init layer over the image layers `diff_ids`, lowest first."""
    return "init-" + hashlib.sha256("\n".join(diff_ids).encode()).hexdigest()


def make_init_layer(staged: Path, lower: Sequence[Path]) -> None:
    """Fill `staged/fs` for an image of the layers `lower` (trees, topmost first). Blocks; uses `staged/work` and
    `staged/merged` and leaves them empty and unmounted."""
    tree, work, merged = staged / "fs", staged / "work", staged / "merged"
    if not lower:
        _add_skeleton(tree)
        return
    work.mkdir()
    merged.mkdir()
    mount_overlay(merged, lower=lower, upper=tree, work=work)
    try:
        _add_skeleton(merged)
    finally:
        unmount_all(merged)


def _add_skeleton(path: Path) -> None:
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # mkdir's and open's modes are filtered by the process's umask, which is shared by all threads: set explicitly.
    try:
        for name in _DIRECTORIES:
            _close(_directory(root, name))
        for name in _FILES:
            _add_file(root, name)
        for name, target in _SYMLINKS:
            _add_symlink(root, name, target)
    finally:
        os.close(root)


def _directory(root: int, name: str) -> int | None:
    """A descriptor of the directory `name`, made with its parents where missing; None when the image has a symlink or
    a file on the way."""
    depth = name.count("/")
    parent = os.dup(root) if depth == 0 else _directory(root, name.rpartition("/")[0])
    if parent is None:
        return None
    try:
        base = name.rpartition("/")[2]
        made = _absent(parent, base)
        if made:
            os.mkdir(base, 0o755, dir_fd=parent)
        return _open_directory(root, name, chmod=0o755 if made else None)
    finally:
        os.close(parent)


def _open_directory(root: int, name: str, *, chmod: int | None) -> int | None:
    try:
        descriptor = openat2(
            root,
            name.encode(),
            flags=os.O_RDONLY | os.O_DIRECTORY,
            resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS,
        )
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return None
        raise
    if chmod is not None:
        os.fchmod(descriptor, chmod)
    return descriptor


def _add_file(root: int, name: str) -> None:
    directory, _, base = name.rpartition("/")
    parent = _directory(root, directory) if directory else os.dup(root)
    if parent is None:
        return
    try:
        if _absent(parent, base):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(base, flags, 0o755, dir_fd=parent)
            os.fchmod(descriptor, 0o755)
            os.close(descriptor)
    finally:
        os.close(parent)


def _add_symlink(root: int, name: str, target: str) -> None:
    parent = _directory(root, name.rpartition("/")[0])
    if parent is None:
        return
    try:
        base = name.rpartition("/")[2]
        if _absent(parent, base):
            os.symlink(target, base, dir_fd=parent)
    finally:
        os.close(parent)


def _absent(parent: int, base: str) -> bool:
    try:
        os.stat(base, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def unsafe_directories(root: Path) -> list[str]:
    """Those of `/dev`, `/proc` and `/sys` below `root` that are not real directories: through a symlink there, an OCI
    runtime would make its mounts and devices on the host. Blocks."""
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return [f"/{name}" for name in ("dev", "proc", "sys") if not _is_real_directory(descriptor, name)]
    finally:
        os.close(descriptor)


def _is_real_directory(root: int, name: str) -> bool:
    try:
        found = openat2(
            root, name.encode(), flags=os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
        )
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    try:
        return stat.S_ISDIR(os.fstat(found).st_mode)
    finally:
        os.close(found)
