"""The record of an image that a node has stored, made of its configuration and the names its archive carried.
Source: https://github.com/opencontainers/image-spec/blob/main/config.md
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api_service.executor_client.images import StoredImage
from api_service.records.config import ImageConfig
from api_service.records.health import HealthConfig
from api_service.records.image import ImageRecord
from api_service.validation.references import InvalidReference, normalise_reference
from common.errors import InvalidArgument

_log = structlog.get_logger(__name__)


class _Healthcheck(BaseModel):
    """Times in nanoseconds; 0 stands for absent. An extension that Docker writes."""

    model_config = ConfigDict(extra="ignore", strict=True)

    Test: list[str] | None = None
    Interval: int = 0
    Timeout: int = 0
    StartPeriod: int = 0
    StartInterval: int = 0
    Retries: int = 0


class _Config(BaseModel):
    """`null` stands for absent, as encoders of Go write it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    User: str | None = None
    Env: list[str] | None = None
    Entrypoint: list[str] | None = None
    Cmd: list[str] | None = None
    WorkingDir: str | None = None
    Labels: dict[str, str] | None = None
    ExposedPorts: dict[str, Any] | None = None
    StopSignal: str | None = None
    Volumes: dict[str, Any] | None = None
    Healthcheck: _Healthcheck | None = None
    Shell: list[str] | None = None


class _Image(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    created: str | None = None
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    config: _Config | None = Field(default=None)


def image_record(stored: StoredImage, *, node: str) -> ImageRecord:
    """Raises InvalidArgument (`CORRUPT_IMAGE`). Names that are none are left out."""
    if stored.id != f"sha256:{hashlib.sha256(stored.config).hexdigest()}":
        # One record is for every node that has the image: none may say for the others what is in it.
        raise InvalidArgument(
            f"image {stored.id[:80]}: node {node!r} says of it what is another image's; pull or load it again",
            reason="CORRUPT_IMAGE",
        )
    try:
        parsed = _Image.model_validate_json(stored.config)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidArgument(
            f"image {stored.id}: its configuration is wrong at {where or 'the beginning'}: {first['msg']}; build the "
            "image again",
            reason="CORRUPT_IMAGE",
        ) from error
    config = parsed.config or _Config()
    return ImageRecord(
        id=stored.id,
        names=tuple(dict.fromkeys(_names(stored.names))),
        config=ImageConfig(
            user=config.User or "",
            env=tuple(config.Env or ()),
            entrypoint=tuple(config.Entrypoint or ()),
            cmd=tuple(config.Cmd or ()),
            working_dir=config.WorkingDir or "",
            labels=config.Labels or {},
            exposed_ports=tuple(sorted(config.ExposedPorts or ())),
            stop_signal=config.StopSignal or "",
            volumes=tuple(sorted(config.Volumes or ())),
            healthcheck=_health(config.Healthcheck) if config.Healthcheck is not None else None,
            shell=tuple(config.Shell or ()),
        ),
        size=stored.size,
        created=created_at(parsed.created),
        architecture=parsed.architecture,
        os=parsed.os,
        layers=stored.layers,
        nodes=(node,),
    )


def encode_image_config(config: ImageConfig) -> bytes:
    """The `config` object of an image configuration, JSON."""
    fields: Mapping[str, object] = {
        "User": config.user,
        "Env": list(config.env),
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "WorkingDir": config.working_dir,
        "Labels": dict(config.labels),
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "StopSignal": config.stop_signal,
        "Volumes": {path: {} for path in config.volumes},
        "Healthcheck": _encode_health(config.healthcheck) if config.healthcheck is not None else None,
        "Shell": list(config.shell),
    }
    return json.dumps({name: value for name, value in fields.items() if value}).encode()


def _health(check: _Healthcheck) -> HealthConfig:
    return HealthConfig(
        test=tuple(check.Test or ()),
        interval=check.Interval,
        timeout=check.Timeout,
        start_period=check.StartPeriod,
        start_interval=check.StartInterval,
        retries=check.Retries,
    )


def _encode_health(check: HealthConfig) -> Mapping[str, object]:
    fields: Mapping[str, object] = {
        "Test": list(check.test),
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return {name: value for name, value in fields.items() if value}


def _names(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            yield normalise_reference(name).familiar
        except InvalidReference as error:
            _log.warning("image name left out", name=name[:200], error=str(error))


def created_at(text: str | None) -> int | None:
    """Nanoseconds since the epoch; builders write RFC 3339, with up to nine decimals, or nothing worth having."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    if moment is None or moment.year < 1970 or moment.tzinfo is None:
        return None
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000
