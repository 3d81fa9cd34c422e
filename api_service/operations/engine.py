"""What the operations work with. Made once, in the composition root; tests make their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from api_service.executor_client.client import ExecutorClient
from api_service.nodes.registry import NodeRegistry
from api_service.operations.cluster_lock import ClusterLock
from api_service.operations.container_locks import ContainerLocks
from api_service.operations.jobs import Jobs
from api_service.operations.removals import Removals
from api_service.overlays.slices import OverlayPools
from api_service.overlays.view import OverlayView
from api_service.records.config import ImageConfig
from api_service.records.container_repository import ContainerRepository
from api_service.records.event_log import EventLog
from api_service.records.exec_repository import ExecRepository
from api_service.records.image_repository import ImageRepository
from api_service.records.moves import MoveRepository
from api_service.records.network_repository import NetworkRepository
from api_service.records.node import NodeRecord
from api_service.records.node_repository import NodeRepository
from api_service.records.node_usage import NodeUsages
from api_service.records.volume_repository import VolumeRepository
from api_service.registries.endpoints import Registries
from api_service.store.claims import Claims
from common.errors import Violation

ImageRules = Callable[[ImageConfig], Sequence[Violation]]
"""The protocol's rules for what a container inherits; fields as in a request, `config.env[0]`."""


Dial = Callable[[NodeRecord], AbstractAsyncContextManager[ExecutorClient]]
"""A connection to a node's executor while the block runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """`clock`: nanoseconds since the epoch. `catch_up`: see `Store`. `creating` holds the ids of the creates under way
    in this process, of containers and of networks: a record in the phase `creating` that is this replica's and not
    among them, or that of a replica which is gone, was left behind. `starting_execs`: the same for execs that are taken
    and not yet answered for. `image_changes`: of all replicas, as the other locks."""

    containers: ContainerRepository
    images: ImageRepository
    volumes: VolumeRepository
    networks: NetworkRepository
    overlays: OverlayView
    execs: ExecRepository
    events: EventLog
    node_records: NodeRepository
    nodes: NodeRegistry
    usages: NodeUsages
    moves: MoveRepository
    dial: Dial
    claims: Claims
    catch_up: Callable[[], Awaitable[bool]]
    locks: ContainerLocks
    departures: ContainerLocks
    network_locks: ContainerLocks
    volume_locks: ContainerLocks
    image_changes: ClusterLock
    jobs: Jobs
    clock: Callable[[], int]
    image_rules: ImageRules
    overlay_pools: OverlayPools = field(default_factory=OverlayPools)
    registries: Registries = field(default_factory=Registries)
    removals: Removals = field(default_factory=Removals)
    creating: set[str] = field(default_factory=set)
    starting_execs: set[str] = field(default_factory=set)
