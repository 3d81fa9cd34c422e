"""Settings of the API service: flags, `SLIPWAY_API_…`, /etc/slipway/api.toml, defaults (see common/settings.py)."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from api_service.etcd.target import EtcdTarget
from api_service.overlays.slices import OverlayPools
from api_service.registries.docker_config import DockerConfig
from api_service.registries.endpoints import Registries
from api_service.registries.locations import MAX_MIRRORS, parse_location, parse_repository
from common.addresses import check_address, is_loopback, is_unix
from common.settings import ServiceSettings, instance_suffix

NO_EXECUTOR = "none"
"""What `executor` says when this machine, or this one alone, has no node."""

EMBEDDED = "embedded"
"""What `migrate` calls the store in `state_dir`."""


class Settings(ServiceSettings):
    """The API service of Slipway: checks requests and keeps the records; the executor service does the work.

    Every flag is also SLIPWAY_API_<FLAG> in the environment and a key of --config FILE (TOML), by default
    /etc/slipway/api.toml.
    """

    model_config = SettingsConfigDict(
        env_prefix="SLIPWAY_API_", cli_prog_name="python -m api_service", cli_implicit_flags=True
    )
    default_file: ClassVar[Path] = Path("/etc/slipway/api.toml")

    listen: list[str] = Field(
        [], description="addresses, host:port or unix:///path; empty: 127.0.0.1:50051 and /run/slipway/api.sock"
    )
    insecure_listen: bool = Field(
        False, description="let TCP addresses that other machines reach do without TLS: whoever reaches them may do all"
    )
    state_dir: Path = Field(Path(), description="where the records are; empty: /var/lib/slipway/api")
    store: str = Field(
        "",
        description="where the records are: empty, the embedded store in state_dir; etcd://host:port,host:port… for "
        "any number of API services over one etcd, etcds://… with TLS",
    )
    insecure_store: bool = Field(
        False, description="let etcd:// lead to other machines: whoever is between may read and change everything"
    )
    etcd_ca: Path = Field(Path(), description="the authorities of etcd's certificates, PEM; empty: tls_ca")
    etcd_cert: Path = Field(Path(), description="our certificate for etcd, PEM; empty: tls_cert, if there is one")
    etcd_key: Path = Field(Path(), description="its private key, PEM; empty: tls_key")
    etcd_user: str = Field("", description="our user of etcd; empty: it is told none")
    etcd_password_file: Path = Field(Path(), description="the file with its password")
    etcd_prefix: Annotated[str, Field(pattern=r"^/([a-zA-Z0-9._-]+/)*$")] = Field(
        "/slipway/", description="what the keys of this installation begin with"
    )
    executor: str = Field(
        "",
        description="the executor's address; empty: unix:///run/slipway/executor.sock; none: only the nodes that are "
        "added with NodeService have one",
    )
    node: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")] = Field(
        "local", description="name of the executor's node"
    )
    user: str = Field("", description="who to become when started as root; empty: slipway, else uid 65532")
    insecure_registries: list[Annotated[str, Field(pattern=r"^[a-zA-Z0-9.:\[\]-]{1,260}$")]] = Field(
        [], description="registries, host or host:port, that speak HTTP; those on the loopback interface do"
    )
    default_registry: str = Field(
        "",
        description="host[:port][/path] that serves names without a host, and lets creates pull them; empty: PullImage "
        "takes them from docker.io, creates do not pull them by themselves",
    )
    registry_mirrors: dict[str, Annotated[list[str], Field(max_length=MAX_MIRRORS)]] = Field(
        {}, description="for a registry's host the mirrors, host[:port][/path], that are tried before it, in order"
    )
    image_aliases: dict[str, str] = Field(
        {}, description="for a repository's name the one, with its host, that it is taken from instead"
    )
    docker_config: Path = Field(
        Path(), description="Docker's config.json; empty: .docker/config.json of the user that the service runs as"
    )
    overlay_ipv4: IPv4Network = Field(OverlayPools().ipv4, description="cut into /18s, one an overlay network")
    overlay_ipv6: IPv6Network = Field(OverlayPools().ipv6, description="cut into /48s, one an overlay network")
    node_lease: Annotated[float, Field(ge=2, le=3600)] = Field(
        30.0,
        description="seconds without contact after which a node kills its containers with reschedule on_node_loss; a "
        "third of that and 5 s later it is lost, and they are started elsewhere",
    )
    max_events: Annotated[int, Field(ge=100, le=10_000_000)] = Field(100_000, description="events kept")
    max_calls: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000,
        description="calls served at the same time, of one caller with a certificate half as many; more are refused "
        "with RESOURCE_EXHAUSTED",
    )

    @property
    def registries(self) -> Registries:
        """Raises ValueError."""
        return Registries(
            insecure=frozenset(host.lower() for host in self.insecure_registries),
            default=parse_location(self.default_registry) if self.default_registry else None,
            mirrors={
                parse_location(host).domain: tuple(map(parse_location, mirrors))
                for host, mirrors in self.registry_mirrors.items()
            },
            aliases={parse_repository(name): parse_repository(other) for name, other in self.image_aliases.items()},
            docker_config=DockerConfig(path=self.docker_config if self.docker_config != Path() else _own_config()),
        )

    @property
    def etcd(self) -> EtcdTarget | None:
        """None for the embedded store. Raises ValueError."""
        return etcd_target(self.store, self) if self.store else None

    @classmethod
    def _instance_defaults(cls, instance: str) -> Mapping[str, object]:
        suffix = instance_suffix(instance)
        run = f"/run/slipway{suffix}"
        # Two instances cannot share a port, and a container engine must not listen by surprise.
        tcp = ["127.0.0.1:50051"] if not suffix else []
        return {
            "listen": [*tcp, f"unix://{run}/api.sock"],
            "state_dir": f"/var/lib/slipway{suffix}/api",
            "executor": f"unix://{run}/executor.sock",
        }

    @model_validator(mode="after")
    def _known_registries(self) -> Self:
        assert self.registries
        return self

    @model_validator(mode="after")
    def _known_store(self) -> Self:
        if self.etcd is not None:
            self._check_store(self.etcd)
        return self

    def _check_store(self, target: EtcdTarget) -> None:
        if target.authority is None and not self.insecure_store:
            for endpoint in target.endpoints:
                if not is_loopback(endpoint):
                    raise ValueError(
                        f"store {endpoint!r}: it is on another machine; say etcds:// and give etcd_ca, or tls_ca; "
                        "--insecure-store does without, and lets whoever is between read and change everything"
                    )

    @model_validator(mode="after")
    def _known_addresses(self) -> Self:
        for address in (*self.listen, *([self.executor] if self.executor != NO_EXECUTOR else [])):
            check_address(address)
        if self.tls is None:
            self._refuse_open_addresses()
        return self

    def _refuse_open_addresses(self) -> None:
        if self.executor != NO_EXECUTOR and not is_unix(self.executor):
            raise ValueError(
                f"executor {self.executor!r}: executors are dialled with TLS; give tls_cert, tls_key, tls_ca"
            )
        for address in self.listen:
            if not (self.insecure_listen or is_unix(address) or is_loopback(address)):
                raise ValueError(
                    f"listen {address!r}: other machines may reach it, so it needs tls_cert, tls_key and tls_ca; "
                    "--insecure-listen does without, and lets whoever reaches it do everything"
                )


class MigrateSettings(Settings):
    """Copies all records from one store to another, and compares them. No API service may run on either."""

    source: str = Field(EMBEDDED, description="embedded, or etcd://host:port,… as in --store")
    target: str = Field(description="the same; it has to be empty")

    @model_validator(mode="after")
    def _known_stores(self) -> Self:
        for store in (self.source, self.target):
            if store != EMBEDDED:
                self._check_store(etcd_target(store, self))
        return self


def etcd_target(store: str, settings: Settings) -> EtcdTarget:
    """What `store` names. Raises ValueError."""
    scheme, found, rest = store.partition("://")
    if not found or scheme not in ("etcd", "etcds"):
        raise ValueError(f"store {store!r}: write etcd://host:port,host:port or etcds://…, or leave it empty")
    endpoints = tuple(rest.rstrip("/").split(","))
    for endpoint in endpoints:
        check_address(endpoint)
        if is_unix(endpoint):
            raise ValueError(f"store {endpoint!r}: etcd's clients are served at host:port")
    authority, certificate, key = (
        next((path for path in paths if path != Path()), None)
        for paths in (
            (settings.etcd_ca, settings.tls_ca),
            (settings.etcd_cert, settings.tls_cert),
            (settings.etcd_key, settings.tls_key),
        )
    )
    if scheme == "etcds" and authority is None:
        raise ValueError("store: etcds:// needs etcd_ca, or tls_ca")
    if (certificate is None) != (key is None):
        raise ValueError("etcd_cert and etcd_key belong together: give both or none")
    password_file = settings.etcd_password_file if settings.etcd_password_file != Path() else None
    if bool(settings.etcd_user) != (password_file is not None):
        raise ValueError("etcd_user and etcd_password_file belong together: give both or none")
    secure = scheme == "etcds"
    return EtcdTarget(
        endpoints=endpoints,
        prefix=settings.etcd_prefix,
        authority=authority if secure else None,
        certificate=certificate if secure else None,
        key=key if secure else None,
        user=settings.etcd_user,
        password_file=password_file,
    )


def _own_config() -> Path | None:
    """Of the user that the service has become; the environment may be that of who started it."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir) / ".docker/config.json"
    except KeyError:
        return None
