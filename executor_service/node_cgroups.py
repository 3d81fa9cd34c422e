"""Containers' cgroups on this host. All work is done in threads: a kernel that reclaims memory takes its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from common.errors import DeadlineExceeded, FailedPrecondition, Unimplemented
from executor_service.container import ContainerSpec, NamespaceMode, NetworkMode
from executor_service.container_cgroups import ContainerCgroups, Running
from executor_service.limits import Resources
from executor_service.oci.block_devices import block_devices
from executor_service.oci.cgroup_moves import CgroupMoves
from executor_service.oci.cgroup_stats import Target, read_stats
from executor_service.oci.cgroup_writer import CgroupWriter
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.process_list import list_processes
from executor_service.oci.resources import needs_more
from executor_service.stats import ContainerStats, ProcessInfo
from executor_service.threads import finish

_FREEZE_TIMEOUT = 10.0  # seconds
_FREEZE_LOOK = 0.001  # seconds between two looks


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCgroups:
    """`cgroup_of`: a container's cgroup, absolute below the root of the hierarchies."""

    tree: CgroupTree
    cgroup_of: Callable[[ContainerSpec], str]
    moves: CgroupMoves

    def expect_moves(self) -> AbstractContextManager[None]:
        return self.moves.expected()

    def directories(self, spec: ContainerSpec) -> Sequence[Path]:
        path = self.cgroup_of(spec).lstrip("/")
        return [root / path for root in self.tree.hierarchies]

    async def freeze(self, spec: ContainerSpec) -> None:
        await finish(lambda: self._freeze(spec))

    async def thaw(self, spec: ContainerSpec) -> None:
        await finish(lambda: self.tree.thaw(self.cgroup_of(spec)))

    async def is_frozen(self, spec: ContainerSpec) -> bool:
        return await finish(lambda: _asked_to_freeze(self._freezer(spec)))

    async def limit(self, spec: ContainerSpec, resources: Resources) -> None:
        await finish(lambda: self._limit(spec, resources))

    async def complete(self, spec: ContainerSpec) -> None:
        if needs_more(spec.resources, v2=self.tree.is_v2):
            await self.limit(spec, spec.resources)

    async def read_stats(self, containers: Sequence[Running]) -> list[ContainerStats]:
        targets = [
            Target(
                container_id=each.spec.id,
                cgroups_path=self.cgroup_of(each.spec),
                limits=each.spec.resources,
                pid=each.pid if each.spec.network_mode is NetworkMode.BRIDGE else 0,
            )
            for each in containers
        ]
        return await finish(lambda: read_stats(self.tree, targets))

    async def processes(self, spec: ContainerSpec) -> list[ProcessInfo]:
        shares_pids = spec.namespaces.pid is NamespaceMode.HOST
        return await finish(lambda: list_processes(self.tree.processes(self.cgroup_of(spec)), shares_pids=shares_pids))

    def _limit(self, spec: ContainerSpec, resources: Resources) -> None:
        writer = CgroupWriter(tree=self.tree, cgroups_path=self.cgroup_of(spec), container_id=spec.id)
        writer.apply(resources, block_devices(resources))

    def _freeze(self, spec: ContainerSpec) -> None:
        """Asked again at every look: a v1 freezer gives up on a group that forks while it is freezing."""
        freezer, deadline = self._freezer(spec), time.monotonic() + _FREEZE_TIMEOUT
        while not _is_still(freezer):
            if time.monotonic() > deadline:
                self.tree.thaw(self.cgroup_of(spec))
                raise DeadlineExceeded(
                    f"container {spec.id!r}: a process of it cannot be frozen, it has waited {_FREEZE_TIMEOUT:g} s for "
                    "a device; it goes on"
                )
            _ask_to_freeze(freezer, spec.id)
            if not _is_still(freezer):
                time.sleep(_FREEZE_LOOK)

    def _freezer(self, spec: ContainerSpec) -> Path:
        directory = self.tree.directory("freezer", self.cgroup_of(spec))
        if directory is None:
            raise Unimplemented("this node's kernel has no freezer; mount the cgroup controller of that name")
        if not directory.is_dir():
            raise FailedPrecondition(
                f"container {spec.id!r} does not run, it has no cgroup",
                resource_type="container",
                resource_name=spec.id,
                reason="NOT_RUNNING",
            )
        return directory


def _ask_to_freeze(freezer: Path, container_id: str) -> None:
    legacy = freezer / "freezer.state"
    try:
        if legacy.exists():
            legacy.write_text("FROZEN")
        else:
            (freezer / "cgroup.freeze").write_text("1")
    except FileNotFoundError as error:
        raise FailedPrecondition(
            f"container {container_id!r} ended before it was frozen", reason="NOT_RUNNING"
        ) from error


def _is_still(freezer: Path) -> bool:
    legacy = freezer / "freezer.state"
    if legacy.exists():
        return legacy.read_text().strip() == "FROZEN"
    return "frozen 1" in (freezer / "cgroup.events").read_text().splitlines()


def _asked_to_freeze(freezer: Path) -> bool:
    legacy = freezer / "freezer.state"
    if legacy.exists():
        return legacy.read_text().strip() != "THAWED"
    return (freezer / "cgroup.freeze").read_text().strip() == "1"


_: type[ContainerCgroups] = NodeCgroups
