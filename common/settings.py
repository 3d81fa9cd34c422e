"""What the settings of both services have in common: flags, then the environment, then a TOML file, then defaults.

The environment's prefix and the default file belong to the service (`SLIPWAY_API_`, /etc/slipway/api.toml); another
file is named by `--config` or the prefix and `CONFIG`. An unknown flag or key is an error, not a silence. Whatever has
a path or a name on the host follows `instance`, so that several installations run side by side.
"""

from __future__ import annotations

import argparse
import copy
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self, TypeVar, cast

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from common.errors import InvalidArgument
from common.logging import LogFormat, LogLevel

DEFAULT_INSTANCE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: our certificate with those between it and an authority, its key, and the authorities we trust."""

    certificate: Path
    key: Path
    authorities: Path


class ServiceSettings(BaseSettings):
    """The base; a service adds its fields, `env_prefix`, `default_file` and `_instance_defaults`."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, cli_kebab_case=True)
    default_file: ClassVar[Path]

    instance: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,9}$")] = Field(
        DEFAULT_INSTANCE, description="name of this installation; every path follows it, so several run side by side"
    )
    log_level: LogLevel = Field("info", description="the least important messages that are logged")
    log_format: LogFormat = Field("console", description="console for people, json for programs")
    grace: Annotated[float, Field(ge=0, le=3600)] = Field(
        10.0, description="seconds that calls under way get to end when the service is stopped"
    )

    tls_cert: Path = Field(
        Path(), description="our certificate, PEM; with tls_key and tls_ca: TLS on every TCP address"
    )
    tls_key: Path = Field(Path(), description="its private key, PEM, readable for this service alone")
    tls_ca: Path = Field(Path(), description="the authorities whose certificates are trusted, PEM")

    @property
    def tls(self) -> TlsFiles | None:
        """None: no TLS."""
        if self.tls_cert == Path():
            return None
        return TlsFiles(certificate=self.tls_cert, key=self.tls_key, authorities=self.tls_ca)

    @model_validator(mode="after")
    def _whole_tls(self) -> Self:
        given = [path != Path() for path in (self.tls_cert, self.tls_key, self.tls_ca)]
        if any(given) and not all(given):
            raise ValueError("tls_cert, tls_key and tls_ca belong together: give all of them or none")
        return self

    @classmethod
    def _instance_defaults(cls, instance: str) -> Mapping[str, object]:
        """The values of fields that follow the instance's name."""
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _follow_instance(cls, values: object) -> object:
        """What was not given, or given empty, follows the instance. A frozen model has it from the start."""
        if not isinstance(values, dict):
            return values
        given = {name: value for name, value in values.items() if value not in ("", [])}
        return {**cls._instance_defaults(str(given.get("instance", DEFAULT_INSTANCE))), **given}

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


def instance_suffix(instance: str) -> str:
    """What is appended to names and paths: nothing for the default instance, else `-<instance>`."""
    return "" if instance == DEFAULT_INSTANCE else f"-{instance}"


SomeSettings = TypeVar("SomeSettings", bound=ServiceSettings)


def load_settings(kind: type[SomeSettings], arguments: Sequence[str]) -> SomeSettings:
    """Raises InvalidArgument with what is wrong with each setting; exits for `--help` and unknown flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(arguments)
    configured = _reading(kind, _file(kind, known.config))
    try:
        source: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(configured, cli_parse_args=list(rest))
        return configured(_cli_settings_source=source)  # type: ignore[call-arg]  # the documented way to give a source
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in each['loc']) or 'settings'}: {each['msg']}" for each in error.errors()
        ]
        raise InvalidArgument("; ".join(lines)) from error
    except SettingsError as error:
        raise InvalidArgument(
            f'{error}: write a list as JSON, as \'["one", "two"]\', when an element begins with a bracket'
        ) from error


def _file(kind: type[ServiceSettings], named: Path | None) -> Path | None:
    from_environment = os.environ.get(f"{kind.model_config['env_prefix']}CONFIG", "")
    given = named or (Path(from_environment) if from_environment else None)
    if given is not None and not given.is_file():
        raise InvalidArgument(f"--config {given}: no such file")
    return given or (kind.default_file if kind.default_file.is_file() else None)


def _reading(kind: type[SomeSettings], file: Path | None) -> type[SomeSettings]:
    """The same settings, read from that file too: pydantic-settings knows its sources by class. `--help` shows the
    defaults of the default instance."""
    namespace: dict[str, object] = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "model_config": SettingsConfigDict(toml_file=file),
    }
    annotations: dict[str, object] = {}
    for name, value in kind._instance_defaults(DEFAULT_INSTANCE).items():
        field = copy.copy(kind.model_fields[name])
        field.default = value
        namespace[name], annotations[name] = field, field.annotation
    namespace["__annotations__"] = annotations
    return cast(
        "type[SomeSettings]", types.new_class(kind.__name__, (kind,), exec_body=lambda own: own.update(namespace))
    )
