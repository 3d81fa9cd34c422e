"""Which namespaces a container gets of its own, shares with the node, or joins (OCI config-linux.md#namespaces)."""

from __future__ import annotations

from dataclasses import dataclass

from common.errors import Internal
from executor_service.container import ContainerSpec, NamespaceMode, NetworkMode
from executor_service.oci.runtime import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """The first processes of the containers whose namespaces are joined; None where none is."""

    ipc: Process | None = None
    pid: Process | None = None

    @property
    def processes(self) -> tuple[Process, ...]:
        return tuple(process for process in (self.ipc, self.pid) if process is not None)


NOTHING_JOINED = Joined()


def namespaces(spec: ContainerSpec, *, netns_path: str, joined: Joined) -> list[dict[str, str]]:
    """The OCI `linux.namespaces`. `netns_path` is empty exactly with the host's network. Raises Internal where the
    other arguments do not fit the specification: what is missing here would be the node's."""
    if bool(netns_path) == (spec.network_mode is NetworkMode.HOST):
        raise Internal(f"container {spec.id}: network mode {spec.network_mode.value} with the namespace {netns_path!r}")
    found = [{"type": "mount"}]
    if not spec.namespaces.host_uts:
        found.append({"type": "uts"})
    found += _one("pid", spec.namespaces.pid, joined.pid, spec)
    found += _one("ipc", spec.namespaces.ipc, joined.ipc, spec)
    if netns_path:
        found.append({"type": "network", "path": netns_path})
    if spec.namespaces.private_cgroup:
        found.append({"type": "cgroup"})
    return found


def _one(kind: str, mode: NamespaceMode, process: Process | None, spec: ContainerSpec) -> list[dict[str, str]]:
    if (mode is NamespaceMode.CONTAINER) != (process is not None):
        raise Internal(f"container {spec.id}: {kind} mode {mode.value} with the process {process}")
    if process is not None:
        return [{"type": kind, "path": f"/proc/{process.pid}/ns/{kind}"}]
    return [] if mode is NamespaceMode.HOST else [{"type": kind}]
