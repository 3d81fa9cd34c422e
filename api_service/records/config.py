"""What is asked for at create, in Docker's words: `ContainerConfig` is portable, `HostConfig` is this host's,
`NetworkingConfig` names the networks. `ImageConfig` is what an image brings along.

Field names are those of the protocol. An empty string, tuple or mapping means "not given" unless a field says
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from api_service.records.health import HealthConfig
from api_service.records.mount import Mount
from api_service.records.resources import DeviceMapping, DeviceRequest, Resources, Ulimit


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """`env` entries are `KEY=value`, or a bare `KEY` that removes the image's variable. `entrypoint`: None inherits the
    image's, `("",)` clears it. `stop_timeout`: seconds, -1 waits without end, None was not given. `exposed_ports`:
    `80/tcp`, `volumes` absolute paths. `shell`: of `CMD-SHELL` health checks."""

    image: str = ""
    hostname: str = ""
    domainname: str = ""
    user: str = ""
    tty: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_timeout: int | None = None
    exposed_ports: tuple[str, ...] = ()
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    healthcheck: HealthConfig | None = None
    volumes: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    network_disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """`config` holds the driver's options, `max-size` and `max-file` for json-file."""

    type: str = ""
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """`name`: empty, `no`, `always`, `unless-stopped` or `on-failure`. Times in nanoseconds; 0 means the default."""

    name: str = ""
    maximum_retry_count: int = 0
    on_unhealthy: bool = False
    initial_delay: int = 0
    max_delay: int = 0
    multiplier: float = 0.0
    reset_after: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """`container`: as the request names it, the full id in a record. `condition`: `started`, `healthy` or
    `completed_successfully`. `timeout`: nanoseconds, 0 means the default."""

    container: str
    condition: str = ""
    timeout: int = 0


ON_NODE_LOSS = "on_node_loss"
"""What `reschedule` says of a container that is started elsewhere when its node is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`reserve_memory` in bytes. `pack`: rather fill nodes than spread over them."""

    constraints: tuple[str, ...] = ()
    reserve_memory: int = 0
    reserve_nano_cpus: int = 0
    pack: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSize:
    """In characters."""

    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PortBinding:
    """`host_ip`: empty means all. `host_port`: a port, a range `8000-8010`, or empty for one that is chosen."""

    host_ip: str = ""
    host_port: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """`extra_hosts` entries are `name:address`. `shm_size`: bytes, 0 means the default. `binds` are
    `[source:]destination[:mode]`. `masked_paths`, `readonly_paths`, `init`: None means the default.
    `port_bindings`: by the container's port, `80/tcp` or `8000-8010/udp`."""

    network_mode: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    auto_remove: bool = False
    log_config: LogConfig = field(default_factory=LogConfig)
    runtime: str = ""
    readonly_rootfs: bool = False
    shm_size: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)
    binds: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    volumes_from: tuple[str, ...] = ()
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    depends_on: tuple[Dependency, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    group_add: tuple[str, ...] = ()
    ipc_mode: str = ""
    pid_mode: str = ""
    uts_mode: str = ""
    userns_mode: str = ""
    cgroupns_mode: str = ""
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[Ulimit, ...] = ()
    devices: tuple[DeviceMapping, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    oom_score_adj: int = 0
    init: bool | None = None
    console_size: ConsoleSize | None = None
    port_bindings: Mapping[str, tuple[PortBinding, ...]] = field(default_factory=dict)
    publish_all_ports: bool = False
    storage_opt: Mapping[str, str] = field(default_factory=dict)
    placement: Placement = field(default_factory=Placement)
    reschedule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """What a container asks of one network. `network_id`: empty until the network was looked up."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    aliases: tuple[str, ...] = ()
    mac_address: str = ""
    gw_priority: int = 0
    network_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkingConfig:
    """`endpoints`: settings by network name (`endpoints_config` in the protocol), in the order of the interfaces."""

    endpoints: Mapping[str, EndpointSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The defaults an image gives its containers. Source: https://github.com/opencontainers/image-spec config.md"""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed_ports: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: HealthConfig | None = None
    volumes: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
