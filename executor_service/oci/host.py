"""What the host's kernel can do, as far as a container's specification depends on it. Probed once, at start-up."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from pathlib import Path

from executor_service.oci.cgroup_features import CgroupFeatures, probe_features
from executor_service.oci.cgroups import CgroupLayout, CgroupTree, detect_layout


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """`machine` as in uname -m; `seccomp` tells whether filters can be installed; `thermal_throttle` lists the per-CPU
    directories of that name in /sys, which a container must not see."""

    machine: str
    seccomp: bool
    cgroup_layout: CgroupLayout
    thermal_throttle: tuple[str, ...] = ()
    cgroups: CgroupFeatures = field(default_factory=CgroupFeatures)


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
    )


def _has_seccomp_filters() -> bool:
    # seccomp(2): the file exists exactly when the kernel has filters (since Linux 4.14).
    return Path("/proc/sys/kernel/seccomp/actions_avail").exists()
