"""Settings of the API service: flags, `SLIPWAY_API_…`, /etc/slipway/api.toml, defaults (see common/settings.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from common.settings import ServiceSettings, instance_suffix


class Settings(ServiceSettings):
    """The API service of Slipway: checks requests and keeps the records; the executor service does the work.

    Every flag is also SLIPWAY_API_<FLAG> in the environment and a key of --config FILE (TOML), by default
    /etc/slipway/api.toml.
    """

    model_config = SettingsConfigDict(env_prefix="SLIPWAY_API_", cli_prog_name="python -m api_service")
    default_file: ClassVar[Path] = Path("/etc/slipway/api.toml")

    listen: list[str] = Field(
        [], description="addresses, host:port or unix:///path; empty: 127.0.0.1:50051 and /run/slipway/api.sock"
    )
    state_dir: Path = Field(Path(), description="where the records are; empty: /var/lib/slipway/api")
    executor: str = Field("", description="the executor's address; empty: unix:///run/slipway/executor.sock")
    node: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")] = Field(
        "local", description="name of the executor's node"
    )
    user: str = Field("", description="who to become when started as root; empty: slipway, else uid 65532")
    insecure_registries: list[Annotated[str, Field(pattern=r"^[a-zA-Z0-9.:\[\]-]{1,260}$")]] = Field(
        [], description="registries, host or host:port, that speak HTTP; those on the loopback interface do"
    )
    max_events: Annotated[int, Field(ge=100, le=10_000_000)] = Field(100_000, description="events kept")
    max_calls: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        10_000, description="calls served at the same time; more are refused with RESOURCE_EXHAUSTED"
    )

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
    def _known_addresses(self) -> Self:
        for address in (*self.listen, self.executor):
            path = address.removeprefix("unix://") if address.startswith("unix:") else None
            if path is not None and not path.startswith("/"):
                raise ValueError(f"{address!r}: write a unix socket as unix:///absolute/path")
            if path is None and not address.rpartition(":")[2].isdigit():
                raise ValueError(f"{address!r}: write an address as host:port or unix:///absolute/path")
        return self
