"""What the benchmark asks of a container engine: both are driven through this one Protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import Protocol

from tests.bench.network_namespace import NetworkNamespace

IMAGE = "busybox:latest"
COMMAND = ("sleep", "3600")
LOG_LINES = 20_000  # what a container of the kind `TALKER` has written
MOUNTS = 20  # what one of the kind `LOADED` has, half of them binds and half tmpfs
DEFAULT_NETWORK = "bridge"
NO_PORTS = range(0)
CALL_TIMEOUT = 60.0  # seconds; a call that takes longer fails the benchmark


class Kind(Enum):
    """What a container is made for."""

    PLAIN = COMMAND
    LOADED = ("sleep", "3601")  # with mounts and every limit
    TALKER = ("sh", "-c", f"seq {LOG_LINES}; exec sleep 3600")
    SERVER = ("httpd", "-f", "-p", "80")
    ECHO = ("cat",)  # with its standard input open


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

    def pull(self, reference: str) -> None:
        """Take an image from a registry; return when containers can be made of it."""

    def remove_image(self, reference: str) -> None:
        """Of which no container is left."""

    def create(
        self,
        name: str,
        kind: Kind = Kind.PLAIN,
        *,
        image: str = IMAGE,
        network: str = DEFAULT_NETWORK,
        ports: range = NO_PORTS,
    ) -> str:
        """Create a container of the image; returns its id. Each of `ports` of the host leads to its TCP port 80."""

    def create_network(self, name: str) -> None:
        """With what is the engine's default for one."""

    def remove_network(self, name: str) -> None:
        """That no container is attached to."""

    def start(self, container: str) -> None:
        """Return when the engine says that the process runs."""

    def kill_until_exit(self, container: str) -> float:
        """SIGKILL it; seconds from sending the kill until a wait, asked for beforehand, answered."""

    def remove(self, container: str) -> None:
        """Remove an ended container."""

    def exec_true(self, container: str) -> None:
        """Run `true` in it, and return when its exit code is known to be 0."""

    def echo(self, container: str) -> AbstractContextManager[Callable[[bytes], None]]:
        """Attach to a container of the kind `ECHO`; the callable writes a line and returns when it has come back."""

    def tail(self, container: str, lines: int) -> int:
        """Read the last `lines` of its log; returns how many came."""

    def stats(self, containers: Sequence[str]) -> AbstractContextManager[None]:
        """While it lasts, the engine tells what these containers use once a second, and all of it is read."""

    @property
    def services(self) -> set[int]:
        """Pids of the engine's own services, without what it keeps for each container."""

    def process(self, container: str) -> int:
        """Pid of the container's own first process."""

    def start_steps(self, containers: Sequence[str]) -> Sequence[Mapping[str, float]]:
        """Milliseconds by step of the starts of these containers; empty when the engine does not tell."""
