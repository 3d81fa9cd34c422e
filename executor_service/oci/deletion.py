"""Ending what runs of a container, whoever started it, and removing what it leaves on the host."""

from __future__ import annotations

import asyncio
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import structlog

from common.errors import DeadlineExceeded, Internal
from executor_service.oci import leftovers
from executor_service.oci.bundle_record import find_created, find_monitor, read_exit, recorded_cgroup
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.conmon import ConmonFiles
from executor_service.oci.log_relay import RELAY, find_relay
from executor_service.oci.processes import send_signal, wait_ended
from executor_service.oci.runtime import Process
from executor_service.oci.runtime_timeouts import RuntimeTimeouts
from executor_service.oci.runtimes import RuntimeBinary, RuntimeKind
from executor_service.run import run

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What is done for a container that is to go, and for one whose create failed. `state_root` is the directory of the
    runtimes' own state, one below it for each runtime."""

    state_root: Path
    cgroups: CgroupTree
    conmon: Path
    timeouts: RuntimeTimeouts

    async def end(self, container_id: str, *, bundle: Path, binary: RuntimeBinary) -> None:
        """Return when no process of the container is left."""
        if created := find_created(bundle):
            if cgroup := recorded_cgroup(bundle, container_id=container_id):
                # Frozen processes would keep even SIGKILL waiting.
                await asyncio.to_thread(self.cgroups.thaw, cgroup)
            send_signal(created.container, signal.SIGKILL)
            await wait_ended(created.container)
        elif read_exit(ConmonFiles(bundle=bundle)) is None:
            # It did not end under its monitor's eyes: the create of an executor that was killed may still be going on.
            await self.kill_all(container_id, bundle=bundle, binary=binary)
        if monitor := find_monitor(bundle):
            await self._end_monitor(monitor)
        if relay := find_relay(bundle):
            # It had its time in `wait_exit`; a disk that takes nothing keeps nobody from starting again.
            send_signal(relay, signal.SIGKILL)

    async def kill_all(self, container_id: str, *, bundle: Path, binary: RuntimeBinary) -> None:
        await asyncio.to_thread(
            leftovers.kill_all,
            container_id,
            programs=([str(self.conmon)], [str(binary.path)], RELAY),
            cgroups=self.cgroups,
            cgroups_path=recorded_cgroup(bundle, container_id=container_id),
            timeout=self.timeouts.delete,
        )

    async def clear(self, container_id: str, *, bundle: Path, binary: RuntimeBinary) -> None:
        """Remove the state of a container none of whose processes runs."""
        state = self.state_root / binary.name
        if binary.kind is RuntimeKind.OTHER:
            argv = [str(binary.path), f"--root={state}", "delete", "--force", container_id]
            try:
                done = await run(argv, timeout=self.timeouts.delete)
            except TimeoutError as error:
                message = (
                    f"container {container_id!r}: {binary.name} delete took longer than {self.timeouts.delete:g} s"
                )
                raise DeadlineExceeded(message) from error
            if done.returncode != 0 and (state / container_id).exists():
                raise Internal(f"container {container_id!r}: {binary.name} delete failed: {done.message}")
        path = recorded_cgroup(bundle, container_id=container_id)
        await asyncio.to_thread(self._clear_blocking, container_id, bundle, path)

    def _clear_blocking(self, container_id: str, bundle: Path, cgroups_path: str) -> None:
        if cgroups_path:
            leftovers.empty_cgroup(self.cgroups, cgroups_path, timeout=self.timeouts.delete)
        # Under every runtime's name: the one that made it may be configured no more.
        for directory in self.state_root.glob(f"*/{container_id}"):
            shutil.rmtree(directory)
        ConmonFiles(bundle=bundle).remove()

    async def _end_monitor(self, monitor: Process) -> None:
        try:
            async with asyncio.timeout(self.timeouts.exit_file):
                await wait_ended(monitor)
        except TimeoutError:
            _log.warning("monitor killed: it did not end after its container", pid=monitor.pid)
            send_signal(monitor, signal.SIGKILL)
            await wait_ended(monitor)
