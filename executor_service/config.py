"""Settings of the executor: flags, then `SLIPWAY_EXECUTOR_…` in the environment, then the TOML file, then defaults.

The file is `--config` (or `SLIPWAY_EXECUTOR_CONFIG`), else /etc/slipway/executor.toml if it exists; its keys are the
fields' names. An unknown flag or key is an error, not a silence.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from common import service_account
from common.errors import InvalidArgument
from common.logging import LogFormat, LogLevel
from executor_service.journal import DEFAULT_RETENTION
from executor_service.network.config import BridgeConfig
from executor_service.paths import Paths

DEFAULT_CONFIG = Path("/etc/slipway/executor.toml")
DEFAULT_INSTANCE = "default"
_ENV_PREFIX = "SLIPWAY_EXECUTOR_"


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class Settings(BaseSettings):
    """The executor service of Slipway: root, one per node, runs what the API service asks for."""

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX,
        extra="forbid",
        frozen=True,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="python -m executor_service [check|reset]",
    )

    instance: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,9}$")] = Field(
        DEFAULT_INSTANCE,
        description="name of this installation; all that follows does so by it, so several can coexist",
    )
    root_dir: AbsolutePath = Field(Path("/"), description="images, layers, records, logs; default: /var/lib/slipway")
    run_dir: AbsolutePath = Field(Path("/"), description="what a reboot ends, and the socket; default: /run/slipway")
    listen: list[Annotated[str, Field(pattern=r"^unix:///.+$")]] = Field(
        [], description="more addresses, unix:///path; default: only RUN_DIR/executor.sock"
    )
    socket_gid: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        service_account.NUMBER, description="the group that may connect; default: the group slipway, else 65532"
    )
    bridge: str = Field("", description="the default network's bridge; default: slipway0")
    ipv4_subnet: IPv4Network = Field(IPv4Network("0.0.0.0/32"), description="of the bridge; default: 10.210.0.0/16")
    ipv6_subnet: IPv6Network = Field(IPv6Network("::/128"), description="of the bridge; default: a unique local /64")
    mtu: Annotated[int, Field(ge=0, le=65535)] = Field(0, description="of the bridge; 0: the default route's")
    sandbox_pool: Annotated[int, Field(ge=0, le=64)] = Field(4, description="network sandboxes kept ready")
    nft_table: str = Field("", description="the nftables table (family inet) that is ours; default: slipway")
    cgroup_parent: Annotated[str, Field(pattern=r"^((/[a-zA-Z0-9_][a-zA-Z0-9_.-]*)+)?$")] = Field(
        "", description="the cgroup above all containers'; default: /slipway"
    )
    runtimes: dict[str, str] = Field(
        {}, description="more OCI runtimes, name=path; crun and runc are found by themselves"
    )
    default_runtime: str = Field(
        "", description="the OCI runtime of a container that names none; default: crun, else runc"
    )
    journal_retention: Annotated[int, Field(ge=1_000, le=100_000_000)] = Field(
        DEFAULT_RETENTION, description="journal entries kept"
    )
    grace: Annotated[float, Field(ge=0, le=3600)] = Field(
        20.0, description="seconds that operations under way get to end when the service is stopped"
    )
    log_level: LogLevel = Field("info", description="the least important messages that are logged")
    log_format: LogFormat = Field("console", description="console for people, json for programs")

    @property
    def paths(self) -> Paths:
        return Paths(root=self.root_dir, run=self.run_dir)

    @property
    def bridge_config(self) -> BridgeConfig:
        """Raises InvalidArgument."""
        return BridgeConfig(
            bridge=self.bridge,
            table=self.nft_table,
            ipv4_subnet=self.ipv4_subnet,
            ipv6_subnet=self.ipv6_subnet,
            run_directory=self.paths.netns,
            mtu=self.mtu or None,
            pool_size=self.sandbox_pool,
        )

    @model_validator(mode="before")
    @classmethod
    def _follow_instance(cls, values: object) -> object:
        """What was not given follows the instance's name. A frozen model has it from the start."""
        if not isinstance(values, dict):
            return values
        given = {name: value for name, value in values.items() if value != ""}
        return instance_defaults(str(given.get("instance", DEFAULT_INSTANCE))) | given

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.root_dir == self.run_dir:
            raise ValueError("root_dir and run_dir must differ: what a reboot ends must not mix with what it does not")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _toml_file.path))


class ResetSettings(Settings):
    """Kill and remove every container of this instance, and all else it has on this host, but images."""

    images: bool = Field(False, description="delete the images too")


def instance_defaults(instance: str) -> dict[str, object]:
    """What follows an instance's name, so that two instances on one host never meet."""
    digest = hashlib.sha256(instance.encode()).digest()
    unique_local = f"fd{digest[0]:02x}:{digest[1:3].hex()}:{digest[3:5].hex()}::/64"  # RFC 4193, section 3.1
    default = instance == DEFAULT_INSTANCE
    suffix = "" if default else f"-{instance}"
    return {
        "root_dir": f"/var/lib/slipway{suffix}",
        "run_dir": f"/run/slipway{suffix}",
        "socket_gid": service_account.service_group(),
        "bridge": "slipway0" if default else f"slw-{instance}",
        "ipv4_subnet": "10.210.0.0/16" if default else f"10.{211 + digest[5] % 40}.0.0/16",
        "ipv6_subnet": unique_local,
        "nft_table": f"slipway{suffix}".replace("-", "_"),
        "cgroup_parent": f"/slipway{suffix}",
    }


class _TomlFile:
    """The file of the load under way; pydantic-settings asks for its sources by class."""

    path: Path | None = None


_toml_file = _TomlFile()


SomeSettings = TypeVar("SomeSettings", bound=Settings)


def load_settings(kind: type[SomeSettings], arguments: Sequence[str]) -> SomeSettings:
    """Raises InvalidArgument with what is wrong with each setting; exits for `--help` and unknown flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(arguments)
    named = os.environ.get(f"{_ENV_PREFIX}CONFIG", "")
    given: Path | None = known.config or (Path(named) if named else None)
    if given is not None and not given.is_file():
        raise InvalidArgument(f"--config {given}: no such file")
    _toml_file.path = given or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None)
    try:
        source: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(kind, cli_parse_args=list(rest))
        return kind(_cli_settings_source=source)  # type: ignore[call-arg]  # the documented way to give a source
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in each['loc']) or 'settings'}: {each['msg']}" for each in error.errors()
        ]
        raise InvalidArgument("; ".join(lines)) from error
