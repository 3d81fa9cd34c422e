"""Files and directories that are either there whole after a power cut, or not at all. Everything here blocks."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from executor_service.kernel import sync_filesystem


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by a file (mode 0600) with `data`: write beside it, fsync, rename, fsync the directory."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_synced(temporary, data)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Create `path` (mode 0600) with `data` and fsync it; the directory's entry is the caller's to sync."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_tree(staged: Path, path: Path) -> None:
    """Rename a finished tree to its place, its contents on disk first: one syncfs costs less than an fsync a file."""
    descriptor = os.open(staged, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_filesystem(descriptor)
    finally:
        os.close(descriptor)
    staged.rename(path)
    sync_directory(path.parent)


def private_directory(path: Path) -> None:
    """Make `path`, or make the one that is there ours alone (mode 0700)."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
