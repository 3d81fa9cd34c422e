"""Checks of a mounted root filesystem before a runtime mounts into it. Images are hostile: what they hold may be
links."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.mount_staging import StagedMount
from executor_service.oci.devices import HostDevice
from executor_service.oci.open_in_root import open_in_root
from executor_service.oci.spec import check_working_dir

_MAX_DEPTH = 128  # components of a working directory


def ensure_working_dir(rootfs: Path, working_dir: str) -> None:
    """Make the working directory if it is missing, as Docker does, without leaving the root. Blocks.

    Raises InvalidArgument when it is no directory, or leads through links into /proc (CVE-2024-21626): links are
    followed here, where no /proc is mounted, so such a link leads nowhere.
    """
    violations = check_working_dir(working_dir)
    parts = [part for part in working_dir.split("/") if part not in ("", ".")]
    if not violations and (".." in parts or len(parts) > _MAX_DEPTH):
        violations = [_violation(f"{working_dir!r} holds '..' or over {_MAX_DEPTH} components; write it plainly")]
    if violations:
        raise InvalidArgument(violations=violations)
    path = ""
    for part in parts:
        parent, path = path or "/", f"{path}/{part}"
        try:
            os.close(_open_directory(rootfs, path))
        except FileNotFoundError:
            _make_directory(rootfs, parent, part, working_dir)
        except OSError as error:
            raise _refused(working_dir, error) from error
    # An image may hold files where /proc and /dev will be mounted, for links to lead to.
    if leads_to := check_working_dir(_real_path(rootfs, working_dir)):
        raise InvalidArgument(violations=leads_to)


def check_device_paths(rootfs: Path, devices: Iterable[HostDevice]) -> None:
    """Raise InvalidArgument for a device whose place in the root is reached through a symlink: runtimes make the node
    wherever that leads. Below /dev, which is a file system of the container's own, there is none. Blocks."""
    for device in devices:
        directory = posixpath.dirname(device.path)
        if directory == "/dev" or directory.startswith("/dev/"):
            continue
        try:
            os.close(open_in_root(rootfs, directory, flags=os.O_PATH, follow_symlinks=False))
        except FileNotFoundError:
            continue
        except OSError as error:
            why = f"{device.path!r} in the container is reached through a link ({error.strerror}); choose another path"
            raise InvalidArgument(violations=[Violation(field="host_config.devices", description=why)]) from error


def _real_path(rootfs: Path, path: str) -> str:
    """Where the directory lies in the root, all links followed."""
    descriptor = _open_directory(rootfs, path)
    try:
        real = Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)
    return f"/{real.relative_to(rootfs.resolve())}"


def ensure_mounted_working_dir(rootfs: Path, working_dir: str, staged: Sequence[StagedMount]) -> None:
    """Make the working directory if it is missing, in the mount in which the container will find it. What is read-only
    or in memory is left as it is. Blocks; raises InvalidArgument."""
    path = posixpath.normpath(working_dir)
    inside = [each for each in staged if f"{path}/".startswith(f"{each.mount.target}/")]
    if not inside:
        ensure_working_dir(rootfs, working_dir)
        return
    deepest = max(inside, key=lambda each: each.mount.target.count("/"))
    if deepest.source is not None and deepest.source.is_dir() and not deepest.mount.read_only:
        ensure_working_dir(deepest.source, path.removeprefix(deepest.mount.target) or "/")


def _make_directory(rootfs: Path, parent: str, name: str, working_dir: str) -> None:
    directory = _open_directory(rootfs, parent)
    try:
        os.mkdir(name, 0o755, dir_fd=directory)
    except OSError as error:
        # EEXIST: a link that leads nowhere stands there.
        raise _refused(working_dir, error) from error
    finally:
        os.close(directory)


def _open_directory(rootfs: Path, path: str) -> int:
    return open_in_root(rootfs, path, flags=os.O_PATH | os.O_DIRECTORY)


def _refused(working_dir: str, error: OSError) -> InvalidArgument:
    reason = "a link in it leads nowhere" if error.errno == errno.EEXIST else error.strerror
    return InvalidArgument(violations=[_violation(f"{working_dir!r} cannot be the working directory: {reason}")])


def _violation(description: str) -> Violation:
    return Violation(field="config.working_dir", description=description)
