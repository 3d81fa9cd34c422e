"""How to tell whether a container does its work, as asked for at create, and what that has told so far.

Lengths of time are nanoseconds, points in time nanoseconds since the epoch of the node's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

NO_CHECK = "NONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProbe:
    port: int
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpProbe:
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcProbe:
    """`service`: empty asks for the server as a whole."""

    port: int
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """`test` is Docker's: `CMD`, `CMD-SHELL` or `NONE` and what follows. At most one of `test`, `http`, `tcp` and
    `grpc` is given. 0 means not given."""

    test: tuple[str, ...] = ()
    http: HttpProbe | None = None
    tcp: TcpProbe | None = None
    grpc: GrpcProbe | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


def is_checked(check: HealthConfig | None) -> bool:
    """Whether a container's merged configuration asks for probes."""
    return check is not None and check.test[:1] != (NO_CHECK,)


class HealthStatus(StrEnum):
    NONE = "none"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """`exit_code`: 0 healthy, -1 too late."""

    started_at: int
    ended_at: int
    exit_code: int
    output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """As of the last change; `log` holds the last five probes, the oldest first."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[ProbeResult, ...] = ()
