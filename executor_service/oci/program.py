"""Whether the program of a container with an init can be executed at all.

A runtime looks for the first program itself, and finds the init; what the init then cannot execute would look like a
program that ran and failed. So it is looked for before the start, in the mounted root, and refused when it is surely
not there: what lies on a mount is not visible here, and is left to the init, which ends with 127 or 126 itself.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from executor_service.container import ContainerSpec
from executor_service.oci.open_in_root import open_in_root
from executor_service.oci.spec import DEFAULT_PATH
from executor_service.oci.start_errors import start_failed
from executor_service.oci.users import ResolvedUser
from executor_service.user_mapping import UserMapping

_ALWAYS_MOUNTED = ("/dev", "/proc", "/sys")
_MAX_LINKS = 40  # as in the kernel, path_resolution(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runner:
    """Who executes, with the ids as files have them."""

    root: bool
    uid: int
    gids: frozenset[int]


class _Found(Enum):
    YES = auto()
    ABSENT = auto()
    DENIED = auto()
    DIRECTORY = auto()
    UNSURE = auto()


def check_program(rootfs: Path, spec: ContainerSpec, user: ResolvedUser, mapping: UserMapping | None = None) -> None:
    """Raise StartFailed, 127 when the program is surely absent, 126 when it surely cannot be executed. `mapping`: how
    the owners of files are seen in `rootfs`. Blocks."""
    program = spec.args[0]
    runner = _runner(user, mapping)
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        candidates = _candidates(program, spec)
        found = {_look(root, path, runner) for path in candidates}
        # Where mounts are takes much longer to see, and mostly need not be known.
        if found & {_Found.YES, _Found.UNSURE} or _on_a_mount(root, candidates, spec):
            return
    finally:
        os.close(root)
    if _Found.DENIED in found:
        why = f"executable file `{program}`: permission denied"
    elif _Found.DIRECTORY in found:
        why = f"executable file `{program}`: is a directory"
    else:
        why = f"executable file `{program}` not found" + ("" if "/" in program else " in $PATH")
    raise start_failed(spec.id, why, command=program)


def _candidates(program: str, spec: ContainerSpec) -> list[str]:
    """As execvp(3): an empty component of PATH is the working directory."""
    if "/" in program:
        return [posixpath.join(spec.working_dir, program)]
    given = [entry.removeprefix("PATH=") for entry in spec.env if entry.startswith("PATH=")]
    directories = (given[-1] if given else DEFAULT_PATH).split(":")
    return [posixpath.join(spec.working_dir, directory, program) for directory in directories]


def _look(root: int, path: str, runner: _Runner) -> _Found:
    try:
        descriptor = open_in_root(root, path, flags=os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return _Found.ABSENT
    except OSError:
        return _Found.UNSURE
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return _Found.DIRECTORY
        if stat.S_ISREG(status.st_mode) and _executable(status, runner):
            return _Found.YES
        # An access control list may allow to some what the mode denies to all others (acl(5)).
        return _Found.UNSURE if status.st_mode & 0o111 and _has_acl(descriptor) else _Found.DENIED
    finally:
        os.close(descriptor)


def _has_acl(descriptor: int) -> bool:
    try:
        return bool(os.getxattr(f"/proc/self/fd/{descriptor}", "system.posix_acl_access"))
    except OSError:
        return False


def _runner(user: ResolvedUser, mapping: UserMapping | None) -> _Runner:
    first_uid, first_gid = (0, 0) if mapping is None else (mapping.first_uid, mapping.first_gid)
    gids = frozenset(first_gid + gid for gid in (user.gid, *user.additional_gids))
    return _Runner(root=user.uid == 0, uid=first_uid + user.uid, gids=gids)


def _executable(status: os.stat_result, runner: _Runner) -> bool:
    mode = status.st_mode
    if runner.root:
        return bool(mode & 0o111)
    if runner.uid == status.st_uid:
        return bool(mode & stat.S_IXUSR)
    if status.st_gid in runner.gids:
        return bool(mode & stat.S_IXGRP)
    return bool(mode & stat.S_IXOTH)


def _on_a_mount(root: int, paths: Sequence[str], spec: ContainerSpec) -> bool:
    """Whether resolving one of the paths in the running container passes a mount, links followed on both sides."""
    targets = (*_ALWAYS_MOUNTED, *(mount.target for mount in spec.mounts))
    mounted = {list(_walk(root, target))[-1] for target in targets}
    return any(place in mounted for path in paths for place in _walk(root, path))


def _walk(root: int, path: str) -> Iterator[str]:
    """Every place passed, without links; the root is the first."""
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    place, links = "/", 0
    yield place
    while todo and links <= _MAX_LINKS:
        part = todo.pop()
        if part == "..":
            place = posixpath.dirname(place)
            continue
        here = posixpath.join(place, part)
        if (target := _link(root, here)) is None:
            place = here
            yield place
            continue
        links += 1
        place = "/" if target.startswith("/") else place
        todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]


def _link(root: int, path: str) -> str | None:
    """What the symlink says; None when it is none, or nothing is there."""
    try:
        descriptor = open_in_root(root, path, flags=os.O_PATH | os.O_NOFOLLOW, follow_symlinks=False)
    except OSError:
        return None
    try:
        if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
            return None
        return os.readlink("", dir_fd=descriptor)
    finally:
        os.close(descriptor)
