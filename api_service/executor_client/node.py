"""What a node is and can do, and how full it is."""

from __future__ import annotations

from dataclasses import dataclass, field

OTHER_EXECUTOR_WAY_OUT = (
    "start the node's own there, or remove the node and add it anew; where it is that of a service's settings, give "
    "the service another name for it (--node), or none (--executor none) and add it with NodeService.AddNode"
)
"""What to do when another executor than the node's answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserMapping:
    """`count` ids of a container, 0 and up, are these on the node."""

    first_uid: int
    first_gid: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the node is and can do. `memory` in bytes; `runtimes`: the default first. `user_mapping`: of the containers
    that do not ask for the node's own users; None: all have these."""

    node_id: str
    version: str
    hostname: str
    os: str
    architecture: str
    kernel_version: str
    cpus: int
    memory: int
    cgroup_layout: str
    runtimes: tuple[str, ...]
    ipv4_forwarding: bool
    warnings: tuple[str, ...] = field(default=())
    capabilities: tuple[str, ...] = ()
    cgroup_features: frozenset[str] = frozenset()
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    seccomp: bool = False
    apparmor: bool = False
    selinux: bool = False
    recursive_read_only: bool = False
    init: bool = False
    user_mapping: UserMapping | None = None
    overlay_address: str = ""  # by which other nodes reach it; empty: none does


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUsage:
    """Bytes."""

    images_size: int
    containers_size: int
    logs_size: int
    volumes_size: int = 0
