"""A container as an executor is asked to lay it out: every default given, every text taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from api_service.records.config import ConsoleSize, RestartPolicy
from api_service.records.health import GrpcProbe, HttpProbe, TcpProbe
from api_service.records.mount import MountPoint
from api_service.records.resources import DeviceMapping, Resources


class NetworkMode(StrEnum):
    BRIDGE = "bridge"
    HOST = "host"
    NONE = "none"
    CONTAINER = "container"


class Seccomp(StrEnum):
    DEFAULT = "default"
    UNCONFINED = "unconfined"
    PROFILE = "profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """An attachment to a network, as it is asked for; what is empty is chosen at start. `dns_names`: what the container
    is called there, its name first. The endpoint with the highest `gateway_priority` is the gateway."""

    network_id: str
    mac_address: str = ""
    ipv4_address: str = ""
    ipv6_address: str = ""
    dns_names: tuple[str, ...] = ()
    gateway_priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """`capabilities`: `CAP_…`, all of them. `masked_paths`, `readonly_paths`: None means the node's own lists."""

    capabilities: tuple[str, ...]
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp: Seccomp = Seccomp.DEFAULT
    seccomp_profile: str = ""
    apparmor_profile: str = ""
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    writable_cgroups: bool = False


class NamespaceMode(StrEnum):
    PRIVATE = "private"
    SHAREABLE = "shareable"
    HOST = "host"
    CONTAINER = "container"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """All but the network's. `ipc_container`, `pid_container`: full ids, with `CONTAINER` only."""

    ipc: NamespaceMode = NamespaceMode.PRIVATE
    ipc_container: str = ""
    pid: NamespaceMode = NamespaceMode.PRIVATE
    pid_container: str = ""
    host_uts: bool = False
    private_cgroup: bool = False
    remapped_users: bool = False
    node_users: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    """`type`: `a`, `b` or `c`. -1: all numbers."""

    type: str
    major: int
    minor: int
    permissions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """`name`: `RLIMIT_NOFILE`. -1: unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecProbe:
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """Nanoseconds, all given."""

    probe: ExecProbe | HttpProbe | TcpProbe | GrpcProbe
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int


class DependencyCondition(StrEnum):
    STARTED = "started"
    HEALTHY = "healthy"
    COMPLETED = "completed_successfully"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeDependency:
    """`timeout`: nanoseconds."""

    container_id: str
    condition: DependencyCondition
    timeout: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """`host_ip` empty: all. `host_port` to `host_port_last`: the first free one; both 0: any."""

    host_ip: str
    host_port: int
    host_port_last: int
    container_port: int
    protocol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """The executor applies no default. Fields mean what the protocol's do."""

    id: str
    image_id: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    user: str
    hostname: str
    domainname: str
    terminal: bool
    readonly_rootfs: bool
    shm_size: int
    network_mode: NetworkMode
    endpoints: tuple[EndpointSpec, ...] = ()
    network_container: str = ""
    dns_servers: tuple[str, ...]
    dns_search: tuple[str, ...]
    dns_options: tuple[str, ...]
    extra_hosts: tuple[tuple[str, str], ...]  # (host name, address)
    log_max_size: int
    log_max_files: int
    log_disabled: bool
    log_buffer_size: int
    runtime: str
    annotations: Mapping[str, str]
    resources: Resources  # without `nano_cpus`
    cgroup_parent: str
    mounts: tuple[MountPoint, ...]
    security: Security
    namespaces: Namespaces
    group_add: tuple[str, ...]
    sysctls: Mapping[str, str]
    rlimits: tuple[Rlimit, ...]
    devices: tuple[DeviceMapping, ...]
    device_rules: tuple[DeviceRule, ...]
    cdi_devices: tuple[str, ...] = ()
    root_size: int = 0
    oom_score_adj: int
    init: bool
    terminal_size: ConsoleSize | None
    open_stdin: bool
    stdin_once: bool
    stop_signal: int
    stop_timeout: int
    restart_policy: RestartPolicy
    health_check: HealthCheck | None
    dependencies: tuple[NodeDependency, ...]
    published_ports: tuple[PublishedPort, ...]
    leased: bool = False
