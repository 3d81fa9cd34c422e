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
from executor_service.oci.openat2 import open_in_root

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
    """Raises InvalidArgument for a target that a link of the image leads into /proc: what is there decides what the
    runtime can protect. Blocks."""
    base = os.path.realpath(rootfs)
    broken = [
        Violation(
            field=f"spec.mounts[{index}].target",
            description=f"{each.mount.target!a} leads into /proc of the container through a link of the image",
        )
        for index, each in enumerate(staged)
        if each.mount.target not in PROC_FILES and _in_proc(_resolved(rootfs, each.mount.target, base=base))
    ]
    if broken:
        raise InvalidArgument(violations=broken)


def _oci_mount(staged: StagedMount) -> Mount:
    mount = staged.mount
    if mount.type is MountType.TMPFS:
        options = [*mount.options, *(["ro"] if mount.read_only and "ro" not in mount.options else [])]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    options = ["bind" if mount.non_recursive else "rbind", mount.propagation or "rprivate"]
    options.append("ro" if mount.read_only else "rw")
    return {"destination": mount.target, "type": "bind", "source": str(staged.source), "options": options}


def _resolved(rootfs: Path, target: str, *, base: str) -> str:
    """Where the target is, with the image's links followed inside the root; what is missing is as it is written."""
    missing = ""
    path = target
    while path:
        try:
            descriptor = open_in_root(rootfs, path, flags=os.O_PATH)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            path, _, last = path.rpartition("/")
            missing = f"/{last}{missing}"
            continue
        try:
            found = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a link of /proc
        finally:
            os.close(descriptor)
        return (found.removeprefix(base) or "") + missing
    return missing


def _in_proc(path: str) -> bool:
    return path == "/proc" or path.startswith("/proc/")
