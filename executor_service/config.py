"""Settings of the executor: flags, `SLIPWAY_EXECUTOR_…`, /etc/slipway/executor.toml, defaults: common/settings.py."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from common import service_account
from common.addresses import check_address, is_unix
from common.settings import ServiceSettings, instance_suffix
from executor_service.cdi.files import DIRECTORIES
from executor_service.journal import DEFAULT_RETENTION
from executor_service.network.config import BridgeConfig
from executor_service.paths import Paths
from executor_service.registry.exchange import STALL
from executor_service.storage.content import ContentLimits
from executor_service.storage.image_caps import ImageCaps
from executor_service.storage.node import StorageLimits


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
_CGROUP = r"^((/[a-zA-Z0-9_][a-zA-Z0-9_.-]*)+)?$"


class Settings(ServiceSettings):
    """The executor service of Slipway: root, one per node, runs what the API service asks for.

    Every flag is also SLIPWAY_EXECUTOR_<FLAG> in the environment and a key of --config FILE (TOML), by default
    /etc/slipway/executor.toml.
    """

    model_config = SettingsConfigDict(
        env_prefix="SLIPWAY_EXECUTOR_",
        cli_prog_name="python -m executor_service [check|reset]",
        cli_implicit_flags=True,
    )
    default_file: ClassVar[Path] = Path("/etc/slipway/executor.toml")

    root_dir: AbsolutePath = Field(Path("/"), description="images, layers, records, logs")
    run_dir: AbsolutePath = Field(Path("/"), description="what a reboot ends, and the socket")
    listen: list[str] = Field(
        [],
        description="addresses beside RUN_DIR/executor.sock: unix:///path, or with tls_cert, tls_key, tls_ca host:port",
    )
    socket_gid: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        service_account.NUMBER, description="the group that may connect"
    )
    bridge: str = Field("", description="the default network's bridge")
    ipv4_subnet: IPv4Network = Field(IPv4Network("0.0.0.0/32"), description="of the bridge")
    ipv6_subnet: IPv6Network = Field(IPv6Network("::/128"), description="of the bridge")
    networks_ipv4: IPv4Network = Field(IPv4Network("10.200.0.0/13"), description="cut into /24s, one a network")
    networks_ipv6: IPv6Network = Field(IPv6Network("::/128"), description="cut into /64s, one a network")
    mtu: Annotated[int, Field(ge=0, le=65535)] = Field(0, description="of the bridges; 0: the default route's")
    overlay_address: IPv4Address | IPv6Address | None = Field(
        None, description="by which other nodes reach this one, for overlay networks; default: the default route's"
    )
    sandbox_pool: Annotated[int, Field(ge=0, le=64)] = Field(
        4, description="network sandboxes kept ready, of each kind"
    )
    nft_table: str = Field("", description="the nftables table (family inet) that is ours")
    cgroup_parent: Annotated[str, Field(pattern=_CGROUP)] = Field("", description="the cgroup above all containers'")
    own_cgroup: Annotated[str, Field(pattern=_CGROUP)] = Field(
        "", description="the cgroup of the executor and of what outlives it, if not the one it is started in"
    )
    runtimes: dict[str, str] = Field(
        {}, description="more OCI runtimes, name=path; crun and runc are found by themselves"
    )
    default_runtime: str = Field(
        "", description="the OCI runtime of a container that names none; default: crun, else runc"
    )
    userns_remap: str = Field(
        "", description="users of containers: those of USER in /etc/subuid and /etc/subgid, or FIRST_UID:COUNT"
    )
    cdi_directories: list[AbsolutePath] = Field(
        list(DIRECTORIES), description="specifications of CDI devices; later directories overrule earlier ones"
    )
    registry_certificates: AbsolutePath = Field(
        Path("/etc/slipway/certs.d"), description="certificates for registries, HOST[:PORT]/*.crt, *.cert and *.key"
    )
    registry_stall: Annotated[float, Field(gt=0, le=600)] = Field(
        STALL, description="seconds without a byte, or with less than 1 KiB/s, that a registry is given"
    )
    image_max_bytes: Annotated[int, Field(ge=1)] = Field(64 << 30, description="of one image, unpacked")
    image_max_entries: Annotated[int, Field(ge=1)] = Field(4_000_000, description="files and the like in one image")
    disk_reserve: Annotated[int, Field(ge=0)] = Field(64 << 20, description="bytes of the disk that images leave free")
    journal_retention: Annotated[int, Field(ge=1_000, le=100_000_000)] = Field(
        DEFAULT_RETENTION, description="journal entries kept"
    )

    @property
    def paths(self) -> Paths:
        return Paths(root=self.root_dir, run=self.run_dir)

    @property
    def storage_limits(self) -> StorageLimits:
        return StorageLimits(
            content=ContentLimits(reserve=self.disk_reserve),
            image=ImageCaps(unpacked=self.image_max_bytes, entries=self.image_max_entries),
        )

    @property
    def bridge_config(self) -> BridgeConfig:
        """Raises InvalidArgument."""
        return BridgeConfig(
            bridge=self.bridge,
            table=self.nft_table,
            ipv4_subnet=self.ipv4_subnet,
            ipv6_subnet=self.ipv6_subnet,
            run_directory=self.paths.netns,
            ipv4_base=self.networks_ipv4,
            ipv6_base=self.networks_ipv6,
            mtu=self.mtu or None,
            pool_size=self.sandbox_pool,
        )

    @classmethod
    def _instance_defaults(cls, instance: str) -> Mapping[str, object]:
        return instance_defaults(instance)

    @model_validator(mode="after")
    def _known_addresses(self) -> Self:
        for address in self.listen:
            check_address(address)
            if self.tls is None and not is_unix(address):
                raise ValueError(f"listen {address!r}: only with TLS; give tls_cert, tls_key and tls_ca")
        return self

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.root_dir == self.run_dir:
            raise ValueError("root_dir and run_dir must differ: what a reboot ends must not mix with what it does not")
        own, parent = f"{self.own_cgroup}/", f"{self.cgroup_parent}/"
        if own.startswith(parent) or (self.own_cgroup and parent.startswith(own)):
            raise ValueError(
                f"own_cgroup {self.own_cgroup!r} must be neither below nor above cgroup_parent {self.cgroup_parent!r}: "
                "what is there is containers', and the kernel takes no limits below a cgroup with processes"
            )
        return self


class ResetSettings(Settings):
    """Kill and remove every container of this instance, and all else it has on this host, but images and volumes."""

    images: bool = Field(False, description="delete the images too")
    volumes: bool = Field(False, description="delete the volumes too, with what is in them")


def instance_defaults(instance: str) -> dict[str, object]:
    """What follows an instance's name, so that two instances on one host do not meet. Their subnets may, one pair in
    forty; the bridge says so, and then one of them wants `ipv4_subnet`."""
    digest = hashlib.sha256(instance.encode()).digest()
    unique_local = f"fd{digest[0]:02x}:{digest[1:3].hex()}:{digest[3:5].hex()}::"  # RFC 4193, section 3.1
    suffix = instance_suffix(instance)
    return {
        "root_dir": f"/var/lib/slipway{suffix}",
        "run_dir": f"/run/slipway{suffix}",
        "socket_gid": service_account.service_group(),
        "bridge": "slipway0" if not suffix else f"slw-{instance}",
        "ipv4_subnet": "10.210.0.0/16" if not suffix else f"10.{211 + digest[5] % 40}.0.0/16",
        "ipv6_subnet": f"{unique_local}/64",
        "networks_ipv6": f"{unique_local}/48",
        "nft_table": f"slipway{suffix}".replace("-", "_"),
        "cgroup_parent": f"/slipway{suffix}",
    }
