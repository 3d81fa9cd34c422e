"""Whether a file system has room for what is to be written to it."""

from __future__ import annotations

import os
from pathlib import Path

from common.errors import ResourceExhausted

_SPARE_INODES = 1024


def has_room(directory: Path, size: int) -> bool:
    """Blocks."""
    try:
        require_room(directory, size)
    except ResourceExhausted:
        return False
    return True


def require_room(directory: Path, size: int) -> None:
    """Raises ResourceExhausted when the file system has less than `size` bytes free, or next to no inodes; blocks."""
    facts = os.statvfs(directory)
    if (free := facts.f_bavail * facts.f_frsize) < size:
        raise ResourceExhausted(
            f"image: {size >> 20} MiB are needed below {str(directory)!r}, {free >> 20} MiB are free; remove images or "
            "containers, or enlarge the disk",
            reason="DISK_FULL",
        )
    if facts.f_files and facts.f_favail < _SPARE_INODES:  # some file systems have no fixed number, and say 0
        raise ResourceExhausted(
            f"image: the file system below {str(directory)!r} has {facts.f_favail} inodes left; remove images or "
            "containers, or make it anew with more of them",
            reason="DISK_FULL",
        )
