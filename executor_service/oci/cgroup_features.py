"""Which limits the host's cgroups can hold, and which processors and memory nodes there are. Probed once, at start-up.

Sources: cgroups(7), the kernel's cgroup-v1/*.rst and cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from executor_service.oci.cgroups import CgroupTree

# Each feature with its controller and the files of which one must be there.
_V1: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "memory": ("memory", ("memory.limit_in_bytes",)),
    "memory_swap": ("memory", ("memory.memsw.limit_in_bytes",)),
    "memory_swappiness": ("memory", ("memory.swappiness",)),
    "cpu_shares": ("cpu", ("cpu.shares",)),
    "cpu_cfs": ("cpu", ("cpu.cfs_quota_us",)),
    "cpuset": ("cpuset", ("cpuset.cpus",)),
    "pids": ("pids", ("cgroup.procs",)),
    # The root has no weight of its own with BFQ, only its statistics; those below it have both.
    "blkio_weight": ("blkio", ("blkio.weight", "blkio.bfq.weight", "blkio.bfq.io_service_bytes")),
    "blkio_throttle": ("blkio", ("blkio.throttle.read_bps_device",)),
}
# The root has none of these files: a cgroup below it is looked at, and the list of controllers if there is none.
_V2: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "memory": ("memory", ("memory.max",)),
    "memory_swap": ("memory", ("memory.swap.max",)),
    "cpu_shares": ("cpu", ("cpu.weight",)),
    "cpu_cfs": ("cpu", ("cpu.max",)),
    "cpuset": ("cpuset", ("cpuset.cpus",)),
    "pids": ("pids", ("pids.max",)),
    "blkio_weight": ("io", ("io.bfq.weight", "io.weight")),
    "blkio_throttle": ("io", ("io.max",)),
}
_V2_UNSEEN = frozenset(_V2) - {"memory_swap", "blkio_weight"}  # whether the kernel has these, no controller tells


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupFeatures:
    """`names` as in `GetNodeResponse.cgroup_features`; the lists are the kernel's, as `0-3,5`."""

    names: frozenset[str] = frozenset()
    cpus: str = ""
    mems: str = ""


def probe_features(tree: CgroupTree) -> CgroupFeatures:
    """Blocks briefly."""
    root = tree.root("cpuset")
    return CgroupFeatures(
        names=frozenset(_v2(tree.hierarchies[0]) if tree.is_v2 else _v1(tree)),
        cpus=_first_line(root, "cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"),
        mems=_first_line(root, "cpuset.mems.effective", "cpuset.effective_mems", "cpuset.mems"),
    )


def _v1(tree: CgroupTree) -> Iterable[str]:
    for name, (controller, files) in _V1.items():
        root = tree.root(controller)
        if root is not None and any((root / file).exists() for file in files):
            yield name


def _v2(root: Path) -> Iterable[str]:
    try:
        available = (root / "cgroup.controllers").read_text().split()
    except OSError:
        available = []
    below = [entry for entry in root.iterdir() if entry.is_dir()]
    for name, (controller, files) in _V2.items():
        if controller not in available:
            continue
        seen = any((group / file).exists() for group in below for file in files)
        enabled = any((group / f"{controller}.stat").exists() for group in below)
        if seen or (not enabled and name in _V2_UNSEEN):
            yield name


def _first_line(root: Path | None, *names: str) -> str:
    for name in names:
        if root is not None and (root / name).exists():
            return (root / name).read_text().strip()
    return ""
