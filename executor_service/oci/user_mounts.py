"""The mounts a container asks for, among those every container has (OCI runtime-spec, config.md#mounts).

Source of the rules: Docker's setMounts. What is asked for replaces what would be there anyway, and a parent is mounted
before what is below it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.bind_sources import SHARED, SLAVE
from executor_service.mount_staging import StagedMount
from executor_service.mounts import MountType
from executor_service.oci.mounts import Mount
from executor_service.oci.open_in_root import open_in_root

# What programs that show a container its own limits (lxcfs) put there; everything else below /proc steers the kernel.
PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        *("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo", "net/dev"),
        *("sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"),
    )
)


def with_user_mounts(defaults: Sequence[Mount], staged: Sequence[StagedMount]) -> list[Mount]:
    """All mounts, parents first."""
    if not staged:
        return list(defaults)
    targets = {each.mount.target for each in staged}
    kept = [
        mount
        for mount in defaults
        if mount["destination"] not in targets and not ("/dev" in targets and mount["destination"].startswith("/dev/"))
    ]
    return sorted([*kept, *map(_oci_mount, staged)], key=lambda mount: mount["destination"].count("/"))


def rootfs_propagation(staged: Sequence[StagedMount]) -> str:
    """What the container's root has to be for its mounts to propagate as asked; empty: the runtime's default."""
    wanted = {each.mount.propagation for each in staged}
    if wanted & SHARED:
        return "shared"
    return "rslave" if wanted & SLAVE else ""


def check_targets(rootfs: Path, staged: Sequence[StagedMount]) -> None:
    """Raises InvalidArgument for a target that a link of the image leads into /proc, where what is mounted decides what
    the runtime can protect, or nowhere. Blocks."""
    base = os.path.realpath(rootfs)
    broken = []
    for index, each in enumerate(staged):
        target = each.mount.target
        found = _resolved(rootfs, target, base=base)
        if found is None:
            why = f"{target!a} leads through a link of the image that leads nowhere"
        elif target not in PROC_FILES and (found == "/proc" or found.startswith("/proc/")):
            why = f"{target!a} leads into /proc of the container through a link of the image"
        else:
            continue
        broken.append(Violation(field=f"spec.mounts[{index}].target", description=why))
    if broken:
        raise InvalidArgument(violations=broken)


def _oci_mount(staged: StagedMount) -> Mount:
    mount = staged.mount
    if mount.type is MountType.TMPFS:
        options = [*mount.options, *(["ro"] if mount.read_only and "ro" not in mount.options else [])]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    options = ["bind" if mount.non_recursive else "rbind", mount.propagation or "rprivate"]
    options += ["ro" if mount.read_only else "rw", *mount.options]
    return {"destination": mount.target, "type": "bind", "source": str(staged.source), "options": options}


def _resolved(rootfs: Path, target: str, *, base: str) -> str | None:
    """Where the target is, with the image's links followed inside the root; what is missing is as it is written. None:
    a link on the way leads to nothing."""
    missing = ""
    path = target
    while path:
        found = _real_path(rootfs, path, flags=os.O_PATH)
        if found is not None:
            return found.removeprefix(base) + missing
        if _real_path(rootfs, path, flags=os.O_PATH | os.O_NOFOLLOW) is not None:
            return None
        path, _, last = path.rpartition("/")
        missing = f"/{last}{missing}"
    return missing


def _real_path(rootfs: Path, path: str, *, flags: int) -> str | None:
    """On the node; None when there is nothing."""
    try:
        descriptor = open_in_root(rootfs, path, flags=flags)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a link of /proc
    finally:
        os.close(descriptor)
