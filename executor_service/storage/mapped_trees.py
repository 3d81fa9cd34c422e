"""Directories of ours, seen a second time with the owners of their files moved: where overlayfs takes the layers of
containers with remapped ids from.

They are mounted below a directory of the run, anew at every start of the executor: what is mounted on them keeps the
old ones. Everything here blocks.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from common.errors import FailedPrecondition
from executor_service.kernel import detach_tree
from executor_service.storage.durable import private_directory
from executor_service.storage.mount_tree import attach_tree, copy_tree, map_owners
from executor_service.threads import finish
from executor_service.user_mapping import UserMapping
from executor_service.user_namespaces import user_namespace

_TRAVERSE_GROUP, _TRAVERSE_OTHERS = 0o010, 0o001


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedTrees:
    """`users`: a descriptor of a user namespace with the mapping. `places`: where each directory is seen again."""

    mapping: UserMapping
    users: int
    places: Mapping[Path, Path]

    def at(self, path: Path) -> Path:
        """Where `path`, below one of the directories, is seen with its owners moved."""
        for directory, place in self.places.items():
            if directory in path.parents:
                return place / path.relative_to(directory)
        raise FailedPrecondition(f"{path} is in no directory whose owners are mapped")


@asynccontextmanager
async def mapped_storage(mapping: UserMapping | None, *, storage: Path, run: Path) -> AsyncIterator[MappedTrees | None]:
    """The layers and containers of the storage, mapped below `run` from here on, also when this process has ended; None
    without a mapping. Raises FailedPrecondition when the kernel or the file system cannot."""
    await finish(lambda: remove_mapped_trees(run))
    if mapping is None:
        yield None
        return
    users = await finish(lambda: _user_namespace(mapping))
    try:
        places = await finish(lambda: _attach_all([storage / "layers", storage / "containers"], run, users))
        yield MappedTrees(mapping=mapping, users=users, places=places)
    finally:
        os.close(users)


def remove_mapped_trees(run: Path) -> None:
    """Whatever an executor left there. Nothing: nothing happens."""
    try:
        places = list(run.iterdir())
    except FileNotFoundError:
        return
    for place in places:
        while True:
            try:
                detach_tree(os.fsencode(place))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                break
        place.rmdir()
    run.rmdir()


def let_pass(directory: Path, mapping: UserMapping) -> None:
    """Let root of the containers, and nobody else, pass through a private directory of ours: a runtime finds a root
    by its path when it is already in the container's user namespace."""
    os.chown(directory, -1, mapping.first_gid)
    directory.chmod(0o710)


def check_passable(path: Path, mapping: UserMapping) -> None:
    """Raises FailedPrecondition when a directory above `path` stops the containers' root."""
    for directory in path.parents:
        status = directory.stat()
        group = status.st_mode & _TRAVERSE_GROUP and status.st_gid == mapping.first_gid
        if not group and not status.st_mode & _TRAVERSE_OTHERS:
            raise FailedPrecondition(
                f"userns_remap: the containers' root (user {mapping.first_uid}) cannot pass {directory}; "
                f"chmod o+x {directory}, or choose another run_dir"
            )


def _user_namespace(mapping: UserMapping) -> int:
    try:
        with user_namespace(mapping) as users:
            return os.dup(users)
    except OSError as error:
        raise FailedPrecondition(f"userns_remap: {error.strerror}; is user.max_user_namespaces 0?") from error


def _attach_all(directories: Sequence[Path], run: Path, users: int) -> dict[Path, Path]:
    private_directory(run)
    places = {}
    for directory in directories:
        private_directory(directory.parent)
        private_directory(directory)
        place = run / directory.name
        place.mkdir(mode=0o700)
        _attach(directory, place, users)
        places[directory] = place
    return places


def _attach(directory: Path, place: Path, users: int) -> None:
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        tree = copy_tree(opened, recursive=False)
        try:
            map_owners(tree, users, recursive=False)
            attach_tree(tree, place)
        finally:
            os.close(tree)
    except OSError as error:
        raise FailedPrecondition(
            f"userns_remap: the owners of files in {directory} cannot be mapped: {error.strerror}; it takes Linux 5.19 "
            "and ext4, xfs or btrfs below it (tmpfs from Linux 6.3 on)"
        ) from error
    finally:
        os.close(opened)
