"""Everything the operations work with; built once at start-up and handed to each of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from executor_service.cleanup import Cleanup
from executor_service.container_locks import ContainerLocks
from executor_service.files.threads import CopyThreads
from executor_service.journal import Journal
from executor_service.lease import Lease
from executor_service.logs.watch import LogWatcher
from executor_service.paths import Paths
from executor_service.records import ContainerRecords
from executor_service.resource_use import ResourceUse
from executor_service.seams import Seams, TimeLimits
from executor_service.streams.attachments import Attachments
from executor_service.streams.execs import Execs
from executor_service.supervision.restarts import Restarts
from executor_service.supervision.supervisor import Supervisor
from executor_service.user_mapping import UserMapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    paths: Paths
    limits: TimeLimits
    boot_id: str
    runtimes: Sequence[str]  # names of the OCI runtimes, the default first
    user_mapping: UserMapping | None  # of remapped containers
    cgroup_features: Collection[str]  # what limits this host can hold
    seams: Seams
    journal: Journal
    records: ContainerRecords
    locks: ContainerLocks
    image_use: ResourceUse
    volume_use: ResourceUse
    network_use: ResourceUse
    lease: Lease
    cleanup: Cleanup
    supervisor: Supervisor
    restarts: Restarts
    log_watcher: LogWatcher
    copies: CopyThreads
    execs: Execs
    attachments: Attachments
