"""What is asked for at create, in Docker's words: `ContainerConfig` is portable, `HostConfig` is this host's,
`NetworkingConfig` names the networks. `ImageConfig` is what an image brings along.

Field names are those of the protocol. An empty string, tuple or mapping means "not given" unless a field says
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """`env` entries are `KEY=value`, or a bare `KEY` that removes the image's variable. `entrypoint`: None inherits the
    image's, `("",)` clears it. `stop_timeout`: seconds, -1 waits without end, None was not given. `exposed_ports`:
    `80/tcp`."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """`config` holds the driver's options, `max-size` and `max-file` for json-file."""

    type: str = ""
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """`extra_hosts` entries are `name:address`. `shm_size`: bytes, 0 means the default."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """What a container asks of one network."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    aliases: tuple[str, ...] = ()
    mac_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkingConfig:
    """`endpoints`: settings by network name (`endpoints_config` in the protocol)."""

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
