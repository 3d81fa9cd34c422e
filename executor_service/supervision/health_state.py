"""What a probe's result makes of a container's health, and when the next probe is due. Pure; Docker's rules."""

from __future__ import annotations

from executor_service.health import HealthCheck, HealthStatus, ProbeResult
from executor_service.journal_entries import HealthChanged

_KEPT = 5  # results
_SECOND = 1_000_000_000  # nanoseconds


def after_probe(check: HealthCheck, health: HealthChanged, result: ProbeResult, *, started_at: int) -> HealthChanged:
    """`started_at`: when the container was started, nanoseconds since the epoch. The streak is counted up to the number
    that makes it unhealthy: beyond that it says nothing new."""
    log = (*health.log, result)[-_KEPT:]
    if result.exit_code == 0:
        return HealthChanged(status=HealthStatus.HEALTHY, log=log)
    young = result.started_at - started_at < check.start_period * _SECOND
    if health.status is HealthStatus.STARTING and young:
        return HealthChanged(status=health.status, failing_streak=health.failing_streak, log=log)
    streak = min(health.failing_streak + 1, check.retries)
    status = HealthStatus.UNHEALTHY if streak >= check.retries else health.status
    return HealthChanged(status=status, failing_streak=streak, log=log)


def is_news(before: HealthChanged, after: HealthChanged) -> bool:
    """Whether it is worth telling; a probe that says what the one before said is not."""
    return (before.status, before.failing_streak) != (after.status, after.failing_streak)


def wait_before_probe(check: HealthCheck, health: HealthChanged, *, age: float) -> float:
    """Seconds from the end of the last probe, or from the start, to the next. `age`: seconds since the start."""
    starting = health.status is HealthStatus.STARTING and age < check.start_period
    return check.start_interval if starting else check.interval
