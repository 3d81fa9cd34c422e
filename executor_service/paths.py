"""Every path of one executor, in one place.

`root` survives a reboot, `run` must not. The run directory itself is open to all (0755) so that an unprivileged API
service reaches the socket; whatever else is in it is private (0700).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.errors import Internal
from executor_service.container import CONTAINER_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    root: Path
    run: Path

    @property
    def database(self) -> Path:
        return self.root / "state.db"

    @property
    def storage(self) -> Path:
        return self.root / "storage"

    @property
    def containers(self) -> Path:
        """One directory a container, for what it keeps between its runs: logs, and the files of its network."""
        return self.root / "containers"

    @property
    def volumes(self) -> Path:
        return self.root / "volumes"

    @property
    def mounts(self) -> Path:
        """One directory a container that is being started: what is mounted in it, before the runtime takes it."""
        return self.run / "mounts"

    @property
    def mapped(self) -> Path:
        """The directories of the storage, seen with the owners of remapped containers."""
        return self.run / "mapped"

    @property
    def roots(self) -> Path:
        """Where the roots of remapped containers are mounted."""
        return self.run / "roots"

    @property
    def bundles(self) -> Path:
        """One directory a running container: the OCI bundle and its monitor's files."""
        return self.run / "bundles"

    @property
    def netns(self) -> Path:
        return self.run / "netns"

    @property
    def runtime(self) -> Path:
        """State of the OCI runtimes and their monitors."""
        return self.run / "runtime"

    @property
    def programs(self) -> Path:
        """OCI runtimes where nothing can overwrite them."""
        return self.run / "programs"

    @property
    def lease(self) -> Path:
        return self.run / "lease"

    @property
    def socket(self) -> Path:
        return self.run / "executor.sock"

    @property
    def lock(self) -> Path:
        return self.run / "executor.lock"

    def container(self, container_id: str) -> Path:
        return self.containers / _checked(container_id)

    def log(self, container_id: str) -> Path:
        return self.container(container_id) / "logs" / "container.log"

    def network_files(self, container_id: str) -> Path:
        """On disk and not in `run`: the container may write them, and must not fill the host's memory."""
        return self.container(container_id) / "network"

    def bundle(self, container_id: str) -> Path:
        return self.bundles / _checked(container_id)


def _checked(container_id: str) -> str:
    # The last line of defence before an id becomes a path; the operations refuse it with a better message.
    if not CONTAINER_ID.fullmatch(container_id):
        raise Internal(f"{container_id!r} is not a container id")
    return container_id
