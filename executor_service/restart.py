"""When and how a container is started again by its node, in the executor's own words. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RestartCondition(StrEnum):
    NEVER = "never"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"
    ON_FAILURE = "on-failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """`maximum_retry_count`: 0 for any number."""

    condition: RestartCondition = RestartCondition.NEVER
    maximum_retry_count: int = 0
    on_unhealthy: bool = False
    initial_delay: float = 0.1
    max_delay: float = 60.0
    multiplier: float = 2.0
    reset_after: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartState:
    """How far a container's policy has come since the last start that was asked for. `count`: starts by the policy, the
    pending one included. `delay`: before the last of them, 0 when there was none. `next_start`: nanoseconds since the
    epoch, None unless a restart is pending."""

    count: int = 0
    delay: float = 0.0
    next_start: int | None = None


class DependencyCondition(StrEnum):
    STARTED = "started"
    HEALTHY = "healthy"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A container of this node that must have come so far before a restart."""

    container_id: str
    condition: DependencyCondition
    timeout: float
