"""The record of a container: what was asked for, where it is, and the last state observed there.

Times are nanoseconds since the epoch: the node's clock for what was observed, this service's for `created_at`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from api_service.records.config import ContainerConfig, HostConfig, NetworkingConfig
from api_service.records.health import Health
from api_service.records.mount import MountPoint
from api_service.records.network import BRIDGE_DRIVER
from api_service.records.node_usage import Booking


class Phase(StrEnum):
    """How far create and remove have come. Only a `ready` container can be used; `creating` ones are not shown."""

    CREATING = "creating"
    READY = "ready"
    REMOVING = "removing"
    DEAD = "dead"


class Status(StrEnum):
    """Docker's seven words for where a container stands."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerState:
    """`exit_code` is of the last process that ended; None before the first end, while one runs, and when nobody saw it.
    `start_id` names the start the process belongs to. `pid` is 0 unless it runs. `running` is also true while it is
    `paused`, and false while a restart is pending: it says that there is a process. `health` is None without a check,
    and unless it runs. `next_restart_at` is None unless a restart is pending; `restart_count` counts those since a
    client started it. `lease_over`: its node killed it because the lease was over."""

    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    error: str = ""
    oom_killed: bool = False
    started_at: int | None = None
    finished_at: int | None = None
    start_id: str = ""
    paused: bool = False
    health: Health | None = None
    restart_count: int = 0
    next_restart_at: int | None = None
    lease_over: bool = False

    @property
    def active(self) -> bool:
        """Docker's `Running`: there is a process, or there will be one again without anybody's doing."""
        return self.running or self.next_restart_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedEndpoint:
    """The attachment to one network while the process runs."""

    network_id: str
    network_name: str
    network_driver: str = BRIDGE_DRIVER
    mac_address: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    gateway: str = ""
    global_ipv6_address: str = ""
    global_ipv6_prefix_len: int = 0
    ipv6_gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundPort:
    """A published port while the process runs. `host_ip`: `0.0.0.0` and `::` stand for all of their family."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedNetwork:
    """`sandbox_key` is the path of the network namespace on the node."""

    sandbox_id: str = ""
    sandbox_key: str = ""
    endpoints: tuple[ObservedEndpoint, ...] = ()
    ports: tuple[BoundPort, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPosition:
    """The last journal entry the record's state includes."""

    journal_id: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """`config` is merged with the image's, `host_config` has its defaults. `request_id`: empty when none was given.
    `creator`: the replica of the API that makes it, or did.
    `update_unsettled`: the node may hold other limits and another restart policy than stand here. `names_untold`: it
    may know the container by an old name on its networks.
    `booked`: what of its node is kept free for it. `moving`: it is to run again, here or on another node.
    `halted`: it was stopped while it ran nowhere, so it does not run again by itself; `halted_at`: how far
    the node's journal was when the node was told that, so what it says of the time before is no start anew.
    `end_told`: the start_id of the last run whose end was told without its node, which may tell it yet.
    `remove_volumes`: the removal that has begun takes its anonymous volumes along."""

    id: str
    name: str
    created_at: int
    phase: Phase
    path: str
    args: tuple[str, ...]
    config: ContainerConfig
    host_config: HostConfig
    networking_config: NetworkingConfig
    image_id: str
    node: str
    platform: str
    request_id: str = ""
    creator: str = ""
    update_unsettled: bool = False
    names_untold: bool = False
    mount_points: tuple[MountPoint, ...] = ()
    state: ContainerState = field(default_factory=ContainerState)
    network: ObservedNetwork = field(default_factory=ObservedNetwork)
    remove_volumes: bool = False
    booked: Booking = field(default_factory=Booking)
    moving: bool = False
    halted: bool = False
    halted_at: JournalPosition = field(default_factory=JournalPosition)
    end_told: str = ""
    observed: JournalPosition = field(default_factory=JournalPosition)

    @property
    def status(self) -> Status:
        if self.phase is Phase.REMOVING:
            return Status.REMOVING
        if self.phase is Phase.DEAD:
            return Status.DEAD
        if self.state.running:
            return Status.PAUSED if self.state.paused else Status.RUNNING
        if self.state.next_restart_at is not None:
            return Status.RESTARTING
        return Status.CREATED if self.state.started_at is None else Status.EXITED
