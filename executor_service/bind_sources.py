"""The node's side of a bind mount: its source, opened, and how mounts propagate there. Everything here blocks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.kernel import RESOLVE_NO_MAGICLINKS, openat2
from executor_service.mounts import Mount
from executor_service.storage.mount_tree import propagation_of

_REASONS = {
    errno.ENOENT: "does not exist on the node; make it, or set create_mountpoint to have it made as a directory",
    errno.ENOTDIR: "leads through something that is no directory",
    # A link of /proc leads to whatever its process has open, and the process could be one of ours.
    errno.ELOOP: "leads through a link to a process's files, or through too many links; name the path itself",
}
SHARED = frozenset({"shared", "rshared"})
SLAVE = frozenset({"slave", "rslave"})


def open_bind_source(mount: Mount, field: str, *, make: bool) -> int:
    """A descriptor of the source, symlinks of the host followed. With `make`, a source that shall be made is. Raises
    InvalidArgument."""
    try:
        return _open(mount.source)
    except FileNotFoundError as error:
        if not (make and mount.create_source):
            raise _refused(mount, field, error) from error
    except OSError as error:
        raise _refused(mount, field, error) from error
    try:
        _make(Path(mount.source))
        return _open(mount.source)
    except OSError as error:
        raise _refused(mount, field, error) from error


def check_propagation(source: int, mount: Mount, field: str) -> None:
    """Raises InvalidArgument when the mount that the source is on cannot propagate as asked."""
    if mount.propagation not in SHARED | SLAVE:
        return
    found = propagation_of(source)
    if found.shared or (found.slave and mount.propagation in SLAVE):
        return
    kind = "a shared" if mount.propagation in SHARED else "a shared or slave"
    why = (
        f"{mount.propagation!r} cannot be had: {mount.source!a} is mounted on {found.mount_point!a}, which is not "
        f"{kind} mount; make it one (mount --make-shared {found.mount_point}), or use rprivate"
    )
    raise InvalidArgument(violations=[Violation(field=f"{field}.propagation", description=why)])


def _open(path: str) -> int:
    return openat2(0, os.fsencode(path), flags=os.O_PATH, resolve=RESOLVE_NO_MAGICLINKS)


def _make(path: Path) -> None:
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        try:
            directory.mkdir()
        except FileExistsError:
            continue
        # The umask is the process's, and other threads may rely on it.
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o755)
        finally:
            os.close(descriptor)


def _refused(mount: Mount, field: str, error: OSError) -> InvalidArgument:
    reason = _REASONS.get(error.errno or 0, f"cannot be used: {error.strerror}")
    return InvalidArgument(
        violations=[Violation(field=f"{field}.source", description=f"the bind source {mount.source!a} {reason}")]
    )
