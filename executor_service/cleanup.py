"""What a run leaves on the host, and its removal: process and cgroup, ports, network, mount, bundle.

The order is Docker's: the runtime's container first, then network and root. Every step runs whatever became of the
one before it. A container whose cleanup has not succeeded yet is remembered, so that the next start does it first;
what only a dead executor remembered is found again at start-up.
"""

from __future__ import annotations

from collections.abc import Collection

from common.errors import Internal
from executor_service.lease import Lease
from executor_service.paths import Paths
from executor_service.seams import Seams, TimeLimits
from executor_service.tasks import bounded


class Cleanup:
    """The caller holds the container's lock, except for `expect`."""

    def __init__(
        self, *, paths: Paths, seams: Seams, lease: Lease, limits: TimeLimits, runtimes: Collection[str]
    ) -> None:
        self._paths = paths
        self._lease = lease
        self._runtimes = frozenset(runtimes)
        self._seams = seams
        self._limits = limits
        self._due: dict[str, str] = {}  # container id → OCI runtime

    def expect(self, container_id: str, *, runtime: str) -> None:
        """The container has something to clean up."""
        self._due[container_id] = runtime

    async def settle(self, container_id: str) -> None:
        """Clean up what is due; nothing due: nothing happens. Raises Internal when a step fails."""
        runtime = self._due.get(container_id)
        if runtime is None:
            return
        failed = await self._run(container_id, runtime)
        if failed:
            raise Internal(
                f"container {container_id!r}: what its last run left cannot be cleaned up: {', '.join(failed)}; the "
                "executor's log has the causes"
            )
        self._due.pop(container_id, None)

    async def end_process(self, container_id: str, *, runtime: str) -> None:
        """Kill what runs and remove the runtime's state; the default runtime's when this one is configured no more."""
        known = runtime if runtime in self._runtimes else ""
        await self._seams.runtime.delete(container_id, bundle=self._paths.bundle(container_id), runtime=known)

    async def _run(self, container_id: str, runtime: str) -> list[str]:
        seams = self._seams
        steps = {
            "names": lambda: seams.names.forget(container_id),
            "process": lambda: self.end_process(container_id, runtime=runtime),
            "lease": lambda: self._lease.leave(container_id),
            "network": lambda: seams.network.leave(container_id),
            "ports": lambda: seams.ports.withdraw(container_id),
            "root": lambda: seams.snapshots.unmount(container_id),
            "mounts": lambda: seams.mounts.end(container_id),
            "bundle": lambda: seams.bundles.remove_bundle(container_id),
        }
        return [
            name
            for name, step in steps.items()
            if not await bounded(name, step, timeout=self._limits.undo_step, container=container_id)
        ]
