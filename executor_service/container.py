"""What the executor is asked to run: one container, fully resolved by the API, in the executor's own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

CONTAINER_ID = re.compile(r"[a-f0-9]{64}")


class NetworkMode(StrEnum):
    BRIDGE = "bridge"
    HOST = "host"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """`max_size` bytes a file (0 = unlimited), `max_files` files kept, the one being written included."""

    max_size: int = 10 * 1024 * 1024
    max_files: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NameResolution:
    """What `/etc/resolv.conf` and `/etc/hosts` are made of; empty lists mean the host's own settings."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()  # (host name, address)


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
    network_mode: NetworkMode = NetworkMode.BRIDGE
    mac_address: str = ""  # empty: chosen by the executor
    names: NameResolution = field(default_factory=NameResolution)
    log: LogLimits = field(default_factory=LogLimits)
    runtime: str = ""  # empty: the executor's default OCI runtime
    annotations: Mapping[str, str] = field(default_factory=dict)
