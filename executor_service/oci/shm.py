"""The /dev/shm of containers that share one: memory mounted beside the bundle, which each of them binds. Blocks.

It goes with the bundle of the container it was made for; those that joined keep theirs until they end.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from executor_service.container import ContainerSpec, NamespaceMode
from executor_service.kernel import MNT_DETACH, mount, unmount
from executor_service.paths import Paths
from executor_service.user_mapping import UserMapping

_NAME = "shm"
_HOSTS = Path("/dev/shm")  # noqa: S108 - the node's, for those that ask for it
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8  # mount(2)


def shm_source(spec: ContainerSpec, paths: Paths, mapping: UserMapping | None = None) -> Path | None:
    """The directory to bind; made, for root as `mapping` has it, when it is the container's own. None: it shares with
    nobody."""
    match spec.namespaces.ipc:
        case NamespaceMode.HOST:
            return _HOSTS
        case NamespaceMode.CONTAINER:
            return paths.bundle(spec.namespaces.ipc_container) / _NAME
        case NamespaceMode.SHAREABLE:
            return _make(paths.bundle(spec.id), spec.shm_size, mapping)
        case _:
            return None


def unmount_shm(bundle: Path) -> None:
    """Nothing mounted, nothing there: nothing happens."""
    while True:
        try:
            unmount(os.fsencode(bundle / _NAME), flags=MNT_DETACH)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            raise


def _make(bundle: Path, size: int, mapping: UserMapping | None) -> Path:
    unmount_shm(bundle)
    directory = bundle / _NAME
    directory.mkdir(mode=0o700, exist_ok=True)
    owner = "" if mapping is None else f",uid={mapping.first_uid},gid={mapping.first_gid}"
    mount(
        source=b"shm",
        target=os.fsencode(directory),
        filesystem=b"tmpfs",
        data=f"mode=1777,size={size}{owner}".encode(),
        flags=_MS_NOSUID | _MS_NODEV | _MS_NOEXEC,
    )
    return directory
