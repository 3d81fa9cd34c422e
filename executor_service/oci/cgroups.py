"""The host's cgroup hierarchies (cgroups(7)): which layout there is, and the removal of a container's cgroups."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from common.errors import Unimplemented

CGROUP_ROOT = Path("/sys/fs/cgroup")
_MAX_OWN = 64 * 1024  # bytes; a line for each hierarchy, with a path of at most a page
_CGROUPS_PATH = re.compile(r"(?:/[A-Za-z0-9_.-]+)+")


class CgroupLayout(StrEnum):
    V1 = "v1"
    HYBRID = "hybrid"  # v1 controllers, and a v2 hierarchy at `unified`
    V2 = "v2"


def detect_layout(mountinfo: Path = Path("/proc/self/mountinfo")) -> CgroupLayout:
    """The layout as this process sees it: v1 inside the runtime's mount namespace. Raises Unimplemented."""
    types = {mount.point: mount.kind for mount in _cgroup_mounts(mountinfo)}
    if types.get(CGROUP_ROOT) == "cgroup2":
        return CgroupLayout.V2
    if "cgroup" not in types.values():
        raise Unimplemented(f"no cgroups are mounted below {CGROUP_ROOT}; mount cgroup2 there and start again")
    return CgroupLayout.HYBRID if "cgroup2" in types.values() else CgroupLayout.V1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mount:
    """`kind` is cgroup or cgroup2. Among a v1 hierarchy's `options` are its controllers."""

    point: Path
    kind: str
    options: tuple[str, ...]


def _cgroup_mounts(mountinfo: Path) -> list[_Mount]:
    """The mount on top wins where several are stacked (proc_pid_mountinfo(5))."""
    stacked: dict[Path, _Mount] = {}
    for line in mountinfo.read_text().splitlines():
        before, _, after = line.partition(" - ")
        point, fields = Path(before.split()[4]), after.split()
        if point == CGROUP_ROOT:
            # Whatever was mounted there or below before is hidden now.
            stacked.clear()
        stacked[point] = _Mount(point=point, kind=fields[0], options=tuple(fields[-1].split(",")))
    return [mount for mount in stacked.values() if mount.kind in {"cgroup", "cgroup2"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupTree:
    """Every hierarchy a container may have a cgroup in. `controllers`: the root of each v1 controller's hierarchy, by
    its name; empty with v2, where there is one root for all."""

    hierarchies: tuple[Path, ...]
    controllers: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def probe(cls, mountinfo: Path = Path("/proc/self/mountinfo")) -> CgroupTree:
        mounts = [mount for mount in _cgroup_mounts(mountinfo) if mount.point.is_relative_to(CGROUP_ROOT)]
        legacy = [mount for mount in mounts if mount.kind == "cgroup"]
        return cls(
            hierarchies=tuple(mount.point for mount in mounts),
            controllers={name: mount.point for mount in legacy for name in mount.options if name not in ("rw", "ro")},
        )

    @property
    def is_v2(self) -> bool:
        return not self.controllers

    def root(self, controller: str) -> Path | None:
        """Where the controller's hierarchy begins; None for a v1 controller that is not mounted."""
        return self.hierarchies[0] if self.is_v2 else self.controllers.get(controller)

    def directory(self, controller: str, cgroups_path: str) -> Path | None:
        """The cgroup's directory in the controller's hierarchy, whether or not it exists. Raises ValueError."""
        check_cgroups_path(cgroups_path)
        root = self.root(controller)
        return None if root is None else root / cgroups_path.lstrip("/")

    def directories(self, cgroups_path: str) -> list[Path]:
        """The cgroup's directories that exist. Raises ValueError for a path that is not plainly below the root."""
        check_cgroups_path(cgroups_path)
        return [path for root in self.hierarchies if (path := root / cgroups_path.lstrip("/")).is_dir()]

    def processes(self, cgroups_path: str) -> set[int]:
        """Pids in the cgroup and the cgroups below it. Blocks."""
        found: set[int] = set()
        for directory in self.directories(cgroups_path):
            for group in _tree(directory):
                found.update(_read_pids(group))
        found.discard(0)  # a process of another pid namespace
        return found

    def move_to_where_we_are(self) -> None:
        """Move this process to the cgroup that it is in, in one hierarchy. Blocks; raises OSError. Done often, and so
        without anything that takes its time."""
        root = self.hierarchies[0]
        name = "" if root == CGROUP_ROOT else root.name
        for controllers, path in _own_cgroups():
            if name in _hierarchy_names(controllers):
                descriptor = os.open(f"{root}{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(descriptor, b"0")
                finally:
                    os.close(descriptor)
                return

    def thaw(self, cgroups_path: str) -> None:
        """Let frozen processes run again: a v1 freezer keeps even SIGKILL waiting."""
        for directory in self.directories(cgroups_path):
            for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                if (directory / name).exists():
                    (directory / name).write_text(value)

    def remove(self, cgroups_path: str, *, timeout: float) -> None:
        """Remove the container's cgroups, the innermost first. Blocks up to `timeout` seconds while the kernel still
        holds dying members; then raises OSError (EBUSY)."""
        deadline = time.monotonic() + timeout
        for directory in self.directories(cgroups_path):
            for group in reversed(_tree(directory)):
                _remove_one(group, deadline)


def check_cgroups_path(path: str) -> None:
    """Raises ValueError for what is not plainly below the root of the hierarchies."""
    if not _CGROUPS_PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise ValueError(f"{path!r} is not the path of a cgroup")


def _own_cgroups() -> Iterator[tuple[str, str]]:
    """(controllers, path) of this process in each hierarchy (cgroups(7), /proc/PID/cgroup)."""
    descriptor = os.open("/proc/self/cgroup", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.fsdecode(os.read(descriptor, _MAX_OWN))
    finally:
        os.close(descriptor)
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        yield controllers, path


def _hierarchy_names(controllers: str) -> set[str]:
    """The directory names a hierarchy is known by: `cpu,cpuacct` is mounted as that or as one of the two."""
    return {controllers, *controllers.split(","), controllers.removeprefix("name=")}


def _tree(directory: Path) -> list[Path]:
    """The directory and those below it, parents first."""
    return [Path(path) for path, _, _ in os.walk(directory)]


def _read_pids(group: Path) -> list[int]:
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except OSError:  # the group went away, or is threaded
        return []


def _remove_one(group: Path, deadline: float) -> None:
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            return
