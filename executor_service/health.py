"""A container's health check and what it has told, in the executor's own words. Lengths of time are seconds, points in
time nanoseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecProbe:
    """A program run in the container."""

    args: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    """A GET; 200 to 399 is healthy."""

    port: int
    path: str = "/"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProbe:
    """That a connection is accepted is healthy."""

    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcProbe:
    """grpc.health.v1.Health/Check; SERVING is healthy. `service`: empty asks for the server."""

    port: int
    service: str = ""


Probe = ExecProbe | HttpProbe | TcpProbe | GrpcProbe


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """`retries` failures in a row make it unhealthy; those within `start_period` of the start do not count."""

    probe: Probe
    interval: float
    timeout: float
    start_period: float
    start_interval: float
    retries: int


class HealthStatus(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """`exit_code`: 0 healthy, -1 too late. `output`: at most 4096 bytes."""

    started_at: int
    ended_at: int
    exit_code: int
    output: str = ""
