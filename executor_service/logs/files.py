"""The files of one log: `log` is being written, `log.1` was written before it, `log.2` before that.

Between two of them lines may be missing: conmon throws away the content of a file that nobody rotates in time. It makes
the new file just before that takes the name `log` of the old one, so a `log` that was made later than `log.1` lost that
name comes after one that is gone. The times tell this until `log.1` is renamed; before that, a rotation writes it down.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from executor_service.logs.birth import born

_ATTEMPTS = 100
_MOMENT = 0.001  # seconds, about what a rotation takes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLog:
    """An open file of the log, which stays readable when it is renamed or dropped. `size` is that at opening. `gap`:
    lines between the file before it and this one are missing."""

    descriptor: int
    inode: int
    size: int
    modified: int  # nanoseconds since the epoch
    changed: int  # nanoseconds since the epoch; the file itself or one of its names
    gap: bool = False

    def close(self) -> None:
        os.close(self.descriptor)


def rotated_files(log: Path) -> list[tuple[int, Path]]:
    """(number, path) of the rotated files, the newest first. Blocks."""
    pattern = re.compile(re.escape(log.name) + r"\.([1-9][0-9]{0,5})")
    try:
        names = [entry.name for entry in os.scandir(log.parent)]
    except FileNotFoundError:
        return []
    found = [(int(match.group(1)), log.with_name(name)) for name in names if (match := pattern.fullmatch(name))]
    return sorted(found)


def inode_of(path: Path) -> int | None:
    """The inode at the path, None when there is nothing. Blocks."""
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None


def open_all(log: Path) -> list[OpenLog]:
    """Open every file of the log, the oldest first; none twice, and none missed while a rotation goes on. Blocks."""
    for _ in range(_ATTEMPTS):
        listed = _listed(log)
        opened = _open_each([path for path, _ in listed])
        # A rotation moves the files up one by one: only a listing that was the same before and after has them all.
        if {file.inode for file in opened} == {inode for _, inode in listed} and _listed(log) == listed:
            return _with_gaps(opened[::-1])
        for file in opened:
            file.close()
        time.sleep(_MOMENT)
    raise BlockingIOError(f"{log} is rotated faster than it can be opened")


def _listed(log: Path) -> list[tuple[Path, int]]:
    """(path, inode) of every file, the newest first."""
    paths = [log, *(path for _, path in rotated_files(log))]
    return [(path, inode) for path in paths if (inode := inode_of(path)) is not None]


def open_next(log: Path, after: OpenLog) -> OpenLog | None:
    """The file that was begun after this one; None while this is the one being written. Blocks.

    A reader so slow that its file was dropped meanwhile goes on with the oldest there is.
    """
    files = open_all(log)
    inodes = [file.inode for file in files]
    index = inodes.index(after.inode) + 1 if after.inode in inodes else 0
    for position, file in enumerate(files):
        if position != index:
            file.close()
    if index == len(files):
        return None
    # Nobody knows what was dropped together with its own file, unless there never is more than one.
    dropped = index == 0 and len(files) > 1
    return replace(files[index], gap=dropped or not goes_on(os.fstat(after.descriptor).st_ctime_ns, files[index]))


def goes_on(changed: int, newer: OpenLog) -> bool:
    """Whether nothing is missing between a file that was `changed` last then and the next one; see above for when the
    times tell. Blocks."""
    return born(newer.descriptor) <= changed


def _with_gaps(files: list[OpenLog]) -> list[OpenLog]:
    """`files` go from the oldest to the newest. A rotation that wrote down a gap meanwhile did so after `changed`."""
    found = [replace(newer, gap=not goes_on(older.changed, newer)) for older, newer in pairwise(files)]
    return [*files[:1], *found]


def _open_each(paths: list[Path]) -> list[OpenLog]:
    opened: list[OpenLog] = []
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        status = os.fstat(descriptor)
        if any(file.inode == status.st_ino for file in opened):
            # A rotation gives the file its second name before it takes the first one away.
            os.close(descriptor)
            continue
        opened.append(
            OpenLog(
                descriptor=descriptor,
                inode=status.st_ino,
                size=status.st_size,
                modified=status.st_mtime_ns,
                changed=status.st_ctime_ns,
            )
        )
    return opened
