"""What the host's kernel can do, as far as a container's specification depends on it. Probed once, at start-up."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

from executor_service.oci.capabilities import bounding_set
from executor_service.oci.cgroup_features import CgroupFeatures, probe_features
from executor_service.oci.cgroups import CgroupLayout, CgroupTree, detect_layout

# Statically linked: it runs in roots that have no C library. Debian: tini.
INIT = Path("/usr/bin/tini-static")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """`machine` as in uname -m, `kernel`: (major, minor). `seccomp` tells whether filters can be installed,
    `capabilities` what a container can be given at most. `thermal_throttle` lists the per-CPU directories of that name
    in /sys, which a container must not see. `init` is a static program for process 1."""

    machine: str
    seccomp: bool
    cgroup_layout: CgroupLayout
    thermal_throttle: tuple[str, ...] = ()
    cgroups: CgroupFeatures = field(default_factory=CgroupFeatures)
    capabilities: frozenset[str] = frozenset()
    kernel: tuple[int, int] = (0, 0)
    apparmor: bool = False
    selinux: bool = False
    init: Path | None = None


def probe_host() -> HostFacts:
    """Read the facts from /proc and /sys. Blocks briefly; raises Unimplemented when no cgroups are mounted."""
    return HostFacts(
        machine=platform.machine(),
        seccomp=_has_seccomp_filters(),
        cgroup_layout=detect_layout(),
        thermal_throttle=tuple(
            sorted(map(os.fspath, Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")))
        ),
        cgroups=probe_features(CgroupTree.probe()),
        capabilities=bounding_set(),
        kernel=_kernel(platform.release()),
        apparmor=_says_yes(Path("/sys/module/apparmor/parameters/enabled")),
        selinux=Path("/sys/fs/selinux/enforce").exists(),
        init=INIT if os.access(INIT, os.X_OK) else None,
    )


def _has_seccomp_filters() -> bool:
    # seccomp(2): the file exists exactly when the kernel has filters (since Linux 4.14).
    return Path("/proc/sys/kernel/seccomp/actions_avail").exists()


def _kernel(release: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _says_yes(parameter: Path) -> bool:
    try:
        return parameter.read_text().strip() == "Y"
    except OSError:
        return False
