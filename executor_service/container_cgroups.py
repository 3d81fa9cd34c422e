"""A running container's cgroup, as the operations see it: frozen, limited, measured."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from executor_service.container import ContainerSpec
from executor_service.limits import Resources
from executor_service.stats import ContainerStats, ProcessInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A container and the id of its first process."""

    spec: ContainerSpec
    pid: int


class ContainerCgroups(Protocol):
    """Every method is idempotent, and raises FailedPrecondition (reason `NOT_RUNNING`) when there is no cgroup."""

    def directories(self, spec: ContainerSpec) -> Sequence[Path]:
        """Where its cgroup is in every hierarchy, whether or not it is there."""

    def expect_moves(self) -> AbstractContextManager[None]:
        """For a runtime that moves processes into cgroups while it lasts, the better the longer it has lasted by then
        (10 ms). Changes nothing but how long that takes, and never fails."""

    async def freeze(self, spec: ContainerSpec) -> None:
        """Return when every process stands still. Raises DeadlineExceeded, with none frozen."""

    async def thaw(self, spec: ContainerSpec) -> None:
        """Let them go on. No cgroup: nothing happens."""

    async def is_frozen(self, spec: ContainerSpec) -> bool:
        """Whether it is frozen, or about to be."""

    async def limit(self, spec: ContainerSpec, resources: Resources) -> None:
        """Hold it to these from now on: all of them, or to what held before. Raises FailedPrecondition for what the
        kernel refuses (reason `LIMIT_REFUSED`), InvalidArgument for a device that is not here."""

    async def complete(self, spec: ContainerSpec) -> None:
        """Between the runtime's create and start: what its configuration has no words for. Raises as `limit`; nothing
        such asked for: nothing happens."""

    async def read_stats(self, containers: Sequence[Running]) -> list[ContainerStats]:
        """Those that still run, in the order given."""

    async def processes(self, spec: ContainerSpec) -> list[ProcessInfo]:
        """In the order of their ids."""
