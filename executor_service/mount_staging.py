"""What a container is to have mounted, made ready where only we can get at it, for the runtime to take from there.

Every source is opened once, without leaving the root it belongs to, and what is mounted at that open file is copied
into a private directory of the run (`<run>/mounts/<container id>/<index>`). A symlink that is exchanged afterwards
redirects nothing. The container has its own copies as soon as it is created; then these go.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from common.errors import InvalidArgument, Violation
from executor_service import kernel
from executor_service.bind_sources import check_propagation, open_bind_source
from executor_service.container import CONTAINER_ID, ContainerSpec
from executor_service.mounts import Mount, MountType
from executor_service.oci.open_in_root import open_in_root
from executor_service.storage.durable import private_directory
from executor_service.storage.host_namespace import HostNamespace
from executor_service.storage.mapped_trees import MappedTrees
from executor_service.storage.mount_tree import (
    attach_tree,
    copy_tree,
    make_read_only,
    map_owners,
    recursive_read_only,
)
from executor_service.storage.overlay_mount import mount_overlay, visible
from executor_service.storage.snapshots import Snapshotter
from executor_service.storage.volumes import VolumeStore
from executor_service.threads import finish

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_EMPTY = ".empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedMount:
    """`source` is what the runtime shall bind to the target; None for a tmpfs."""

    mount: Mount
    source: Path | None


class MountStager(Protocol):
    """The mounts that containers ask for. Those that ask for none never get here."""

    async def check(self, mounts: Sequence[Mount]) -> None:
        """Whether the node has the sources of the binds; those to be made are made. Raises InvalidArgument."""

    async def stage(self, spec: ContainerSpec) -> Sequence[StagedMount]:
        """Make all of them ready, in the order of the specification. Raises InvalidArgument, NotFound for a volume,
        FailedPrecondition."""

    async def unstage(self, container_id: str) -> None:
        """The runtime has taken them. Idempotent."""

    async def end(self, container_id: str) -> None:
        """The container has ended: unstage, and give its volumes back. Idempotent."""

    async def adopt(self, holders: Mapping[str, set[str]]) -> None:
        """After a restart: nothing is being started; `holders` are the running containers by volume."""


class HostMounts:
    """`root` is made when it is first needed. `host` is where paths of binds are looked up."""

    def __init__(
        self,
        root: Path,
        *,
        volumes: VolumeStore,
        snapshots: Snapshotter,
        host: HostNamespace,
        mapped: MappedTrees | None = None,
    ) -> None:
        self._root = root
        self._mapped = mapped
        self._volumes = volumes
        self._snapshots = snapshots
        self._host = host
        self._staged: set[str] = set()

    async def check(self, mounts: Sequence[Mount]) -> None:
        if any(mount.type is MountType.BIND for mount in mounts):
            with ExitStack() as opened:
                await self._host.run(lambda: _open_binds(mounts, opened, make=True))

    async def stage(self, spec: ContainerSpec) -> Sequence[StagedMount]:
        mounts = spec.mounts
        self._staged.add(spec.id)
        volumes = {
            index: await self._volumes.hold(mount.source, spec.id)
            for index, mount in enumerate(mounts)
            if mount.type is MountType.VOLUME
        }
        images = {
            index: await self._snapshots.image_trees(mount.source, remapped=spec.remapped)
            for index, mount in enumerate(mounts)
            if mount.type is MountType.IMAGE
        }
        with ExitStack() as opened:
            trees: dict[int, int] = {}
            if any(mount.type is MountType.BIND for mount in mounts):
                await self._host.run(lambda: trees.update(_copy_binds(mounts, opened)))
            home = self._root / spec.id
            users = self._mapped.users if self._mapped is not None and spec.remapped else None
            return await finish(lambda: _attach_all(home, mounts, opened, trees, volumes, images, users))

    async def unstage(self, container_id: str) -> None:
        if container_id in self._staged:
            await finish(lambda: _remove(self._root / container_id))
            self._staged.discard(container_id)

    async def end(self, container_id: str) -> None:
        await self._volumes.release(container_id)
        await self.unstage(container_id)

    async def adopt(self, holders: Mapping[str, set[str]]) -> None:
        await finish(lambda: remove_staged(self._root))
        await self._volumes.reconcile(holders)


def remove_staged(root: Path) -> None:
    """Whatever a crash left. Blocks."""
    with suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if CONTAINER_ID.fullmatch(entry.name):
                _remove(root / entry.name)


def _open_binds(mounts: Sequence[Mount], opened: ExitStack, *, make: bool) -> dict[int, int]:
    """Descriptors of the sources by the mount's index; those that are missing are told all at once."""
    found: dict[int, int] = {}
    broken: list[Violation] = []
    for index, mount in enumerate(mounts):
        if mount.type is MountType.BIND:
            try:
                found[index] = open_bind_source(mount, f"spec.mounts[{index}]", make=make)
            except InvalidArgument as error:
                broken += error.violations
            else:
                opened.callback(os.close, found[index])
    if broken:
        raise InvalidArgument(violations=broken)
    return found


def _copy_binds(mounts: Sequence[Mount], opened: ExitStack) -> dict[int, int]:
    trees: dict[int, int] = {}
    for index, source in _open_binds(mounts, opened, make=True).items():
        mount = mounts[index]
        check_propagation(source, mount, f"spec.mounts[{index}]")
        trees[index] = copy_tree(source, recursive=not mount.non_recursive)
        opened.callback(os.close, trees[index])
    return trees


def _attach_all(
    home: Path,
    mounts: Sequence[Mount],
    opened: ExitStack,
    trees: Mapping[int, int],
    volumes: Mapping[int, Path],
    images: Mapping[int, Sequence[Path]],
    users: int | None,
) -> Sequence[StagedMount]:
    _remove(home)
    private_directory(home.parent)
    home.mkdir(mode=0o700)
    if any(mount.type is not MountType.TMPFS for mount in mounts):
        # So that they all go at once: the kernel waits for its grace periods with each mount that is detached.
        kernel.mount_on_itself(os.fsencode(home))
    staged = []
    for index, mount in enumerate(mounts):
        if mount.type is MountType.TMPFS:
            staged.append(StagedMount(mount=mount, source=None))
            continue
        field = f"spec.mounts[{index}]"
        place = home / str(index)
        if index in volumes:
            tree = _copy_volume(volumes[index], mount, field, opened)
            if users is not None:
                _map_owners(tree, users, mount, field)
        elif index in images:
            tree = _copy_image(home / "image", images[index], mount, field, opened)
        else:
            tree = trees[index]
        _restrict(tree, mount, field)
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            place.mkdir(mode=0o700)
        else:
            place.touch(mode=0o600)
        attach_tree(tree, place)
        staged.append(StagedMount(mount=mount, source=place))
    return staged


def _copy_volume(data: Path, mount: Mount, field: str, opened: ExitStack) -> int:
    root = os.open(data, _DIRECTORY)
    opened.callback(os.close, root)
    return _copy_below(root, mount, field, opened)


def _map_owners(tree: int, users: int, mount: Mount, field: str) -> None:
    try:
        map_owners(tree, users, recursive=True)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        why = f"the file system of volume {mount.source!r} cannot map owners; give the container userns_mode 'host'"
        raise InvalidArgument(violations=[Violation(field=f"{field}.source", description=why)]) from error


def _copy_image(place: Path, layers: Sequence[Path], mount: Mount, field: str, opened: ExitStack) -> int:
    """The copy keeps the file system; the mount it is a copy of goes at once."""
    # Overlayfs takes no single layer; this one outlives the container's directory, as it is in use.
    empty = place.parent.with_name(_EMPTY)
    for directory in (place, empty):
        directory.mkdir(exist_ok=True)
    mount_overlay(place, lower=[*visible(layers), empty], upper=None, work=None)
    try:
        root = os.open(place, _DIRECTORY)
        opened.callback(os.close, root)
        return _copy_below(root, mount, field, opened)
    finally:
        kernel.unmount(os.fsencode(place), flags=kernel.MNT_DETACH)


def _copy_below(root: int, mount: Mount, field: str, opened: ExitStack) -> int:
    source = root
    if mount.subpath:
        try:
            # As a process whose root this is would see it: whatever links there are, they lead to what is inside.
            source = open_in_root(root, mount.subpath, flags=os.O_PATH)
        except OSError as error:
            reason = "does not exist" if error.errno == errno.ENOENT else f"cannot be used: {error.strerror}"
            why = f"{mount.subpath!a} {reason} in the {mount.type.value} {mount.source!r}"
            raise InvalidArgument(violations=[Violation(field=f"{field}.subpath", description=why)]) from error
        opened.callback(os.close, source)
    tree = copy_tree(source, recursive=True)
    opened.callback(os.close, tree)
    return tree


def _restrict(tree: int, mount: Mount, field: str) -> None:
    if not mount.read_only or mount.read_only_non_recursive:
        return  # the runtime makes the mount itself read-only, and nothing below it
    if recursive_read_only():
        make_read_only(tree, recursive=True)
    elif mount.read_only_force_recursive:
        why = "this node's kernel cannot make mounts below a mount read-only: that takes Linux 5.12"
        raise InvalidArgument(violations=[Violation(field=f"{field}.read_only_force_recursive", description=why)])


def _remove(home: Path) -> None:
    _detach(home)
    try:
        names = os.listdir(home)  # noqa: PTH208 - the names are all that is wanted
    except FileNotFoundError:
        return
    for name in names:
        place = home / name
        _detach(place)
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink()
    home.rmdir()


def _detach(place: Path) -> None:
    while True:
        try:
            kernel.detach_tree(os.fsencode(place))
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
            return


_: type[MountStager] = HostMounts
