"""What the executor is asked to run: one container, fully resolved by the API, in the executor's own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from executor_service.health import HealthCheck
from executor_service.limits import Resources, Rlimit
from executor_service.mounts import Mount
from executor_service.ports import PublishedPort
from executor_service.restart import Dependency, RestartPolicy

CONTAINER_ID = re.compile(r"[a-f0-9]{64}")
# What begins so steers the runtime itself: hooks, seccomp, systemd properties.
RESERVED_ANNOTATIONS = ("run.oci.", "io.crun.", "module.wasm.", "org.criu.", "org.systemd.")


class NetworkMode(StrEnum):
    BRIDGE = "bridge"
    HOST = "host"
    NONE = "none"
    CONTAINER = "container"


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
class LogLimits:
    """`max_size` bytes a file (0 = unlimited), `max_files` files kept, the one being written included. `disabled`: no
    output is kept. `buffer`: bytes that may wait for a container that does not wait itself, 0 when it does."""

    max_size: int = 10 * 1024 * 1024
    max_files: int = 5
    disabled: bool = False
    buffer: int = 0


class Seccomp(StrEnum):
    DEFAULT = "default"
    UNCONFINED = "unconfined"
    PROFILE = "profile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """`capabilities` of the process; those the node lacks are left out. `privileged`: all devices, writable /sys and
    cgroups, nothing hidden. `seccomp_profile`: JSON in Docker's form. `masked_paths`, `readonly_paths`: None means the
    node's own lists."""

    capabilities: tuple[str, ...] = ()
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
    NONE = "none"  # private, and without /dev/shm; only for IPC


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """The namespaces but the network's. `ipc_container`, `pid_container`: whose is joined, with `CONTAINER`."""

    ipc: NamespaceMode = NamespaceMode.PRIVATE
    ipc_container: str = ""
    pid: NamespaceMode = NamespaceMode.PRIVATE
    pid_container: str = ""
    host_uts: bool = False
    private_cgroup: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNode:
    """What a CDI specification says of a device; what it does not say (no type, None) is the node's."""

    type: str = ""
    major: int = 0
    minor: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of the node, or a directory of devices. `permissions`: of `rwm`. `node`: only for a CDI device's."""

    source: str
    target: str
    permissions: str = "rwm"
    node: DeviceNode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A program of the node that the runtime runs, by the OCI's name of the moment. `timeout`: seconds."""

    name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    """`type` is `a`, `b` or `c`; -1 stands for all numbers."""

    type: str
    major: int
    minor: int
    permissions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    """In characters."""

    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NameResolution:
    """What `/etc/resolv.conf` and `/etc/hosts` are made of; empty lists mean the host's own settings."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()  # (host name, address)


AS_THE_HOST = NameResolution()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """A container as the API resolved it. Immutable from create to remove.

    `id` is 64 lower-hex characters, `image_id` is `sha256:<hex>` (the digest of the image's config) or empty for a
    container without an image. `user` is Docker's grammar (`uid`, `uid:gid`, `name`, `name:group`), resolved in the
    container's own passwd and group at start. `env` is final except for HOME.
    """

    id: str
    image_id: str
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    hostname: str = ""
    domainname: str = ""
    terminal: bool = False
    readonly_rootfs: bool = False
    shm_size: int = 64 * 1024 * 1024  # bytes
    network_mode: NetworkMode = NetworkMode.NONE
    endpoints: tuple[EndpointSpec, ...] = ()  # in the order of their interfaces; with `BRIDGE` only
    network_container: str = ""  # whose sandbox is shared, with `CONTAINER`
    names: NameResolution = field(default_factory=NameResolution)
    log: LogLimits = field(default_factory=LogLimits)
    runtime: str = ""  # empty: the executor's default OCI runtime
    annotations: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    cgroup_parent: str = ""  # empty: the node's
    mounts: tuple[Mount, ...] = ()
    security: Security = field(default_factory=Security)
    namespaces: Namespaces = field(default_factory=Namespaces)
    remapped: bool = False  # its users are others on the node
    node_users: bool = False  # they are the node's, also where it remaps them
    group_add: tuple[str, ...] = ()  # names or numbers of the container's own group file
    sysctls: Mapping[str, str] = field(default_factory=dict)
    rlimits: tuple[Rlimit, ...] = ()
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    root_size: int = 0  # bytes its files may grow by, 0: any
    cdi_devices: tuple[str, ...] = ()  # `vendor/class=name`
    hooks: tuple[Hook, ...] = ()  # only ever those of its CDI devices, never asked for
    oom_score_adj: int = 0
    init: bool = False
    terminal_size: TerminalSize | None = None
    open_stdin: bool = False
    stdin_once: bool = False
    stop_signal: int = 15  # for what the node itself stops
    stop_timeout: int = 10  # seconds, -1: never SIGKILL
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    health_check: HealthCheck | None = None
    dependencies: tuple[Dependency, ...] = ()
    published_ports: tuple[PublishedPort, ...] = ()
    leased: bool = False  # runs only while the node's lease is in force
