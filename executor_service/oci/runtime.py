"""The container's process: created and started by an OCI runtime, kept by conmon, which outlives the executor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from executor_service.user_mapping import UserMapping


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleUsers:
    """The user namespace of the container: the one that the pinned network namespace `of` belongs to. `uid` and `gid`
    are those of its process, on the node."""

    mapping: UserMapping
    of: Path
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Everything the runtime needs: `config` is the OCI `config.json`, `directory` (0700) holds it and conmon's files.

    `log_path` is the k8s-file log; with a `log_buffer` (bytes) the container never waits for it, and what does not fit
    into that is dropped. `runtime` names the OCI runtime (empty: the default)."""

    container_id: str
    directory: Path
    config: Mapping[str, object]
    log_path: Path
    log_size_limit: int  # bytes; conmon's last resort when nobody rotates
    terminal: bool
    stdin: bool = False  # else it reads an end of file
    stdin_once: bool = False  # it ends when the first client to close it does
    runtime: str = ""
    keeps_log: bool = True
    log_buffer: int = 0
    users: BundleUsers | None = None  # else the node's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process with its start time (clock ticks since boot, /proc/PID/stat field 22), by which a reused pid shows."""

    pid: int
    start_time: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedProcess:
    """The container's first process, held before exec, and its monitor."""

    container: Process
    monitor: Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a container ended. `code` is None when nobody saw it (conmon killed, machine rebooted); never invented."""

    code: int | None
    oom_killed: bool
    finished_at: float  # seconds since the epoch


class ContainerRuntime(Protocol):
    """The runtime and its monitor. Keyed by container id; safe to repeat."""

    async def create(self, bundle: Bundle) -> CreatedProcess:
        """conmon + `create`. Raises StartFailed with 126, 127 or 128; then nothing of it is left."""

    async def start(self, container_id: str, *, runtime: str = "") -> None:
        """Let the created process exec. Raises StartFailed."""

    async def kill(self, container_id: str, process: Process, signal: int, *, init: bool = False) -> None:
        """Signal the container's first process. `init`: that is an init, which hears signals a moment after its start
        and no sooner. Raises FailedPrecondition when it is gone."""

    async def delete(self, container_id: str, *, bundle: Path, runtime: str = "") -> None:
        """Kill what is left; remove the runtime's state, the cgroup, conmon's files, but never the log. Idempotent."""

    async def wait_exit(self, created: CreatedProcess, *, bundle: Path) -> Exit:
        """Return when the container has ended; works for processes a former executor started. Cancel-safe."""

    def find(self, bundle: Path) -> CreatedProcess | None:
        """What runs for this bundle according to its pid files and /proc; None when its container process is gone.
        Finds orphans of an executor killed in the middle of `create`."""
