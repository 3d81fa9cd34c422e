"""The parts of the executor that touch the host, each behind its Protocol, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass

from common.sqlite import Database
from executor_service.bundles import Bundles
from executor_service.container_cgroups import ContainerCgroups
from executor_service.dns.containers import ContainerNames
from executor_service.dns.elsewhere import NamesElsewhere
from executor_service.mount_staging import MountStager
from executor_service.network.network_store import NetworkStore
from executor_service.network.publication import PortPublisher
from executor_service.network.sandbox import SandboxNetwork
from executor_service.oci.exec_runtime import ExecRuntime
from executor_service.oci.runtime import ContainerRuntime
from executor_service.registry.source import OpenRegistry, OpenTarget
from executor_service.storage.images import ImageStore
from executor_service.storage.snapshots import Snapshotter
from executor_service.storage.volumes import VolumeStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Seams:
    database: Database
    images: ImageStore
    registries: OpenRegistry
    targets: OpenTarget
    snapshots: Snapshotter
    volumes: VolumeStore
    mounts: MountStager
    networks: NetworkStore
    network: SandboxNetwork
    names: ContainerNames
    names_elsewhere: NamesElsewhere
    ports: PortPublisher
    runtime: ContainerRuntime
    execs: ExecRuntime
    bundles: Bundles
    cgroups: ContainerCgroups


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """Seconds."""

    undo_step: float = 30  # one step of an undo or a cleanup
    start: float = 120  # a whole start, its undo not included
    kill: float = 10  # from SIGKILL until the process must be gone; Docker's bound
    lock: float = 60  # waiting for another operation on the same container
