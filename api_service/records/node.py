"""The record of a node: where its executor is, what it said of itself, and whether it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Availability(StrEnum):
    """Whether a node gets new containers. `drained`: those that may run elsewhere leave it, too."""

    ACTIVE = "active"
    CORDONED = "cordoned"
    DRAINED = "drained"


class NodeState(StrEnum):
    READY = "ready"
    UNREACHABLE = "unreachable"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """`reason`: why it does not answer, empty when it does. `since`: nanoseconds since the epoch."""

    state: NodeState
    since: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDescription:
    """What a node said of itself when it was last reached. `memory` in bytes; `runtimes`: the default first."""

    version: str = ""
    hostname: str = ""
    os: str = ""
    architecture: str = ""
    kernel_version: str = ""
    cgroup_layout: str = ""
    cpus: int = 0
    memory: int = 0
    runtimes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """`executor_id`: of the executor that answered first, empty until then; no other is dealt with. `configured`: it is
    the node of a service's own settings, which say where it is; where that service is the only one on the store, its
    executor may become another one.
    `fresh`: it was taken in, and it was not looked yet what it brings along. `promised_lease`: seconds; the longest one
    that a service has promised it and that may not be over yet. `created_at`: nanoseconds since the epoch."""

    name: str
    created_at: int
    address: str
    status: NodeStatus
    labels: Mapping[str, str] = field(default_factory=dict)
    availability: Availability = Availability.ACTIVE
    executor_id: str = ""
    configured: bool = False
    fresh: bool = False
    removing: bool = False
    promised_lease: float = 0.0
    description: NodeDescription = field(default_factory=NodeDescription)
