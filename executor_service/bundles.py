"""What a container's process is made of, as the operations see it: its user, its files, its OCI bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from common.errors import Violation
from executor_service.container import ContainerSpec
from executor_service.mount_staging import StagedMount
from executor_service.network.sandbox import Sandbox
from executor_service.oci.namespaces import NOTHING_JOINED, Joined
from executor_service.oci.runtime import Bundle
from executor_service.oci.users import ResolvedUser


class Bundles(Protocol):
    """Bundles keyed by container id. Every method is idempotent."""

    async def refusals(self, spec: ContainerSpec) -> list[Violation]:
        """What the specification asks for and this host cannot give; fields as in a request of the public API."""

    async def with_cdi_devices(self, spec: ContainerSpec) -> ContainerSpec:
        """The specification with what its CDI devices, as the node has them now, add to it. Raises InvalidArgument."""

    async def resolve_user(
        self, spec: ContainerSpec, *, rootfs: Path, mounts: Sequence[StagedMount] = ()
    ) -> ResolvedUser:
        """Look the user and its groups up in the container's own passwd and group, and make the working directory if it
        is missing. Raises InvalidArgument; StartFailed when there is surely nothing for an init to execute."""

    async def lay_out(
        self,
        spec: ContainerSpec,
        *,
        rootfs: Path,
        sandbox: Sandbox,
        user: ResolvedUser,
        mounts: Sequence[StagedMount] = (),
        joined: Joined = NOTHING_JOINED,
    ) -> Bundle:
        """Write the files of the container's network and make the bundle. Raises InvalidArgument for what the
        specification may not say."""

    async def update_names(self, spec: ContainerSpec, *, before: Sandbox, after: Sandbox) -> None:
        """Its networks have changed while it runs: write the files of name resolution anew, save those that are no more
        as we wrote them, for then they are the container's. Raises OSError."""

    async def restore_names(self, spec: ContainerSpec, sandbox: Sandbox) -> None:
        """The same for a change that a former executor may not have come to. Raises OSError."""

    async def remove_bundle(self, container_id: str) -> None:
        """Delete the bundle, and end whatever still lives in the container's cgroup: the bundle's files may be lost,
        and then nothing else tells of it. Logs stay."""

    async def remove_files(self, container_id: str) -> None:
        """Delete what the container keeps between its runs, its logs included."""

    async def list_bundles(self) -> set[str]:
        """Ids of the containers that have a bundle: the running ones, and what a crash left."""

    async def list_files(self) -> set[str]:
        """Ids of the containers that keep something here."""

    async def logs_size(self) -> int:
        """Bytes of the logs of all containers."""
