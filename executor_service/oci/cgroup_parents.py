"""Cgroups above containers' own that a container asked for: made when they are missing, removed when they are empty
again, and only if they were made here.

What was made here carries a mark in an extended attribute (xattr(7); only root reads it), which a crash does not lose.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

from executor_service.oci.cgroups import CgroupTree

_MARK = "trusted.slipway"


def make_parents(cgroups: CgroupTree, cgroups_path: str, *, owner: str) -> None:
    """Make what is missing above the cgroup, in every hierarchy, marked as `owner`'s. Blocks."""
    for root in cgroups.hierarchies:
        for directory in reversed(_above(root, cgroups_path)):
            try:
                directory.mkdir(mode=0o755)
            except FileExistsError:
                continue
            _mark(directory, owner)


def remove_parents(cgroups: CgroupTree, cgroups_path: str, *, owner: str) -> None:
    """Remove what `make_parents` made above the cgroup and nobody uses any more. Blocks."""
    for root in cgroups.hierarchies:
        for directory in _above(root, cgroups_path):
            if not _remove(directory, owner):
                break


def remove_all_parents(cgroups: CgroupTree, *, owner: str) -> None:
    """The same for everything that `owner` ever made. Blocks."""
    for root in cgroups.hierarchies:
        for path, _, _ in os.walk(root, topdown=False):
            if path != str(root):
                _remove(Path(path), owner)


def find_cgroups(cgroups: CgroupTree, name: str) -> Iterator[str]:
    """The paths of all cgroups with this last part, wherever they are: for when nothing else tells. Blocks."""
    found = set()
    for root in cgroups.hierarchies:
        for path, directories, _ in os.walk(root):
            if name in directories:
                found.add("/" + os.path.relpath(os.path.join(path, name), root))  # noqa: PTH118 - of a walk's strings
    yield from sorted(found)


def _above(root: Path, cgroups_path: str) -> list[Path]:
    """Without the root, the innermost first."""
    return list((root / cgroups_path.lstrip("/")).parents)[: cgroups_path.count("/") - 1]


def _mark(directory: Path, owner: str) -> None:
    try:
        os.setxattr(directory, _MARK, owner.encode())
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        # It stays behind when it is empty, as one that an administrator made would.


def _remove(directory: Path, owner: str) -> bool:
    try:
        if os.getxattr(directory, _MARK) != owner.encode():
            return False
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # not marked, or used by another container
    return True
