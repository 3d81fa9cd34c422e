"""Settings of the API service: flags, then `SLIPWAY_API_…` in the environment, then the TOML file, then defaults.

The file is `--config` (or `SLIPWAY_API_CONFIG`), else /etc/slipway/api.toml if it exists; its keys are the fields'
names. An unknown flag or key is an error, not a silence.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from common.errors import InvalidArgument
from common.logging import LogFormat, LogLevel

DEFAULT_CONFIG = Path("/etc/slipway/api.toml")
DEFAULT_INSTANCE = "default"
_ENV_PREFIX = "SLIPWAY_API_"


class Settings(BaseSettings):
    """The API service of Slipway: checks requests and keeps the records; the executor service does the work."""

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX, extra="forbid", frozen=True, cli_kebab_case=True, cli_prog_name="python -m api_service"
    )

    instance: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,9}$")] = Field(
        DEFAULT_INSTANCE, description="name of this installation; every path follows it, so several run side by side"
    )
    listen: list[str] = Field(
        [], description="addresses, host:port or unix:///path; empty: 127.0.0.1:50051 and /run/slipway/api.sock"
    )
    state_dir: Path = Field(Path(), description="where the records are; empty: /var/lib/slipway/api")
    executor: str = Field("", description="the executor's address; empty: unix:///run/slipway/executor.sock")
    node: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")] = Field(
        "local", description="name of the executor's node"
    )
    user: str = Field("", description="who to become when started as root; empty: slipway, else uid 65532")
    log_level: LogLevel = Field("info", description="the least important messages that are logged")
    log_format: LogFormat = Field("console", description="console for people, json for programs")
    grace: Annotated[float, Field(ge=0, le=3600)] = Field(
        10.0, description="seconds that running calls get to end when the service is stopped"
    )
    max_events: Annotated[int, Field(ge=100, le=10_000_000)] = Field(100_000, description="events kept")
    max_calls: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="calls served at the same time; more are refused with RESOURCE_EXHAUSTED"
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_instance(cls, values: object) -> object:
        """Paths that were not given are the instance's. A frozen model has them from the start."""
        if not isinstance(values, dict):
            return values
        instance = values.get("instance", DEFAULT_INSTANCE)
        suffix = "" if instance == DEFAULT_INSTANCE else f"-{instance}"
        run = f"/run/slipway{suffix}"
        # Two instances cannot share a port, and a container engine must not listen by surprise.
        tcp = ["127.0.0.1:50051"] if not suffix else []
        return {
            "listen": [*tcp, f"unix://{run}/api.sock"],
            "state_dir": f"/var/lib/slipway{suffix}/api",
            "executor": f"unix://{run}/executor.sock",
        } | {name: value for name, value in values.items() if value not in ("", [])}

    @model_validator(mode="after")
    def _known_addresses(self) -> Self:
        for address in (*self.listen, self.executor):
            path = address.removeprefix("unix://") if address.startswith("unix:") else None
            if path is not None and not path.startswith("/"):
                raise ValueError(f"{address!r}: write a unix socket as unix:///absolute/path")
            if path is None and not address.rpartition(":")[2].isdigit():
                raise ValueError(f"{address!r}: write an address as host:port or unix:///absolute/path")
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
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def load_settings(arguments: Sequence[str]) -> Settings:
    """Raises InvalidArgument with a line for each setting that is wrong; exits for `--help` and unknown flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(arguments)
    given = known.config or (Path(os.environ[f"{_ENV_PREFIX}CONFIG"]) if f"{_ENV_PREFIX}CONFIG" in os.environ else None)
    if given is not None and not given.is_file():
        raise InvalidArgument(f"--config {given}: no such file")
    file = given or (DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None)

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        source: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(Configured, cli_parse_args=list(rest))
        return Configured(_cli_settings_source=source)  # type: ignore[call-arg]  # the documented way to give a source
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in each['loc']) or 'settings'}: {each['msg']}" for each in error.errors()
        ]
        raise InvalidArgument("; ".join(lines)) from error
