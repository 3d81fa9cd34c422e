"""What the benchmark asks of a container engine: both are driven through this one Protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tests.bench.network_namespace import NetworkNamespace

IMAGE = "busybox:latest"
COMMAND = ("sleep", "3600")
CALL_TIMEOUT = 60.0  # seconds; a call that takes longer fails the benchmark


class Engine(Protocol):
    """A running engine, reached over its native protocol on connections that stay open. Safe to call from many threads.

    Any failure is an exception: a benchmark of failing calls would measure nothing.
    """

    @property
    def name(self) -> str:
        """The column's heading."""

    @property
    def namespace(self) -> NetworkNamespace:
        """Where the engine's own processes run: daemons, monitors, shims, proxies."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Versions and settings that the numbers depend on."""

    def load_image(self, archive: Path) -> None:
        """Take in a `docker save` archive that carries IMAGE."""

    def create(self, name: str) -> str:
        """Create a container of IMAGE running COMMAND on the default bridge; returns its id."""

    def start(self, container: str) -> None:
        """Return when the engine says that the process runs."""

    def kill_until_exit(self, container: str) -> float:
        """SIGKILL it; seconds from sending the kill until a wait, asked for beforehand, answered."""

    def remove(self, container: str) -> None:
        """Remove an ended container."""

    def process(self, container: str) -> int:
        """Pid of the container's own first process."""

    def start_steps(self, containers: Sequence[str]) -> Sequence[Mapping[str, float]]:
        """Milliseconds by step of the starts of these containers; empty when the engine does not tell."""
