"""Further programs in running containers, through the OCI runtime's own `exec`.

The runtime stays the program's parent and ends with its exit code, 128+n after signal n. There is no monitor between
(conmon would take twice as long), so an exec's streams and exit code end with the executor.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from executor_service.container import TerminalSize
from executor_service.logs.record import Stream
from executor_service.oci.exec_process import ExecProcessSpec
from executor_service.oci.runtime import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecTarget:
    """A running container: its first process, its bundle's directory, the name of its OCI runtime, whether its users
    are others on the node."""

    container_id: str
    process: Process
    bundle: Path
    runtime: str = ""
    remapped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecStreams:
    """Which streams are passed on; the others are /dev/null. A terminal's output all comes as standard output."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOutcome:
    """`exit_code` is None when it was killed because its time was up. `output`: both streams, cut at the bound."""

    exit_code: int | None
    output: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftExec:
    """What a former executor left of an exec: its process, None when it has ended, and whether it was detached."""

    process: Process | None
    detached: bool


class RunningExec(Protocol):
    """One program that runs. Belongs to one event loop; `close` it, whatever happens."""

    @property
    def process(self) -> Process:
        """The program itself."""

    @property
    def ended(self) -> asyncio.Future[int]:
        """Its exit code. Never fails, and must not be cancelled."""

    async def read(self) -> tuple[Stream, bytes] | None:
        """Some output, as it was written; None when there will be no more. A program whose output nobody reads
        waits."""

    async def write(self, data: bytes) -> None:
        """Return when the kernel has taken it; dropped when there is no standard input (any more)."""

    async def end_input(self) -> None:
        """The program reads an end of file. Idempotent."""

    def resize(self, size: TerminalSize) -> None:
        """Raises FailedPrecondition without a terminal."""

    def signal(self, number: int) -> bool:
        """False when the program has ended."""

    def close(self) -> None:
        """Give the streams back to the kernel: a program that goes on writing gets SIGPIPE or SIGHUP. Idempotent."""


class ExecRuntime(Protocol):
    """Runs programs in containers. Raises StartFailed (126, 127, 128) for what cannot be run, InvalidArgument for what
    may not be, FailedPrecondition when the container has ended."""

    async def spawn(
        self, target: ExecTarget, exec_id: str, process: ExecProcessSpec, streams: ExecStreams
    ) -> RunningExec:
        """Return when the program runs. Cancelled: nothing is left of it."""

    async def run_probe(
        self, target: ExecTarget, process: ExecProcessSpec, *, timeout: float, max_output: int
    ) -> ProbeOutcome:
        """Run it to its end, without input; SIGKILL after `timeout` seconds. Output beyond `max_output` bytes is
        dropped. Cancelled: killed."""

    def mark_detached(self, bundle: Path, exec_id: str) -> None:
        """An executor after this one is to let it run. Never fails: what is gone needs no mark."""

    def left(self, bundle: Path) -> dict[str, LeftExec]:
        """The execs of a former executor in a container, by id."""

    def forget(self, bundle: Path, exec_id: str) -> None:
        """Drop what is kept of an exec. Idempotent. Blocks."""
