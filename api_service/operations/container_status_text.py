"""A container's state for people, in Docker's words: `Up 3 minutes`, `Exited (0) 2 hours ago`."""

from __future__ import annotations

from api_service.records.container import ContainerRecord, Status
from api_service.records.health import HealthStatus

_SECOND = 1_000_000_000  # nanoseconds


def status_text(record: ContainerRecord, *, now: int) -> str:
    """`now` in nanoseconds since the epoch."""
    state = record.state
    match record.status:
        case Status.RUNNING:
            return f"Up {human_duration(_since(state.started_at, now))}{_health(record)}"
        case Status.PAUSED:
            return f"Up {human_duration(_since(state.started_at, now))} (Paused)"
        case Status.RESTARTING:
            return f"Restarting ({_code(state.exit_code)}) {human_duration(_since(state.finished_at, now))} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case Status.CREATED:
            return "Created"
        case Status.EXITED:
            return f"Exited ({_code(state.exit_code)}) {human_duration(_since(state.finished_at, now))} ago"


def _health(record: ContainerRecord) -> str:
    if (health := record.state.health) is None:
        return ""
    return " (health: starting)" if health.status is HealthStatus.STARTING else f" ({health.status.value})"


def human_duration(seconds: float) -> str:
    """One unit, as Docker rounds it."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(seconds / 3600 + 0.5)
    days = hours // 24
    steps = (
        (whole < 1, "Less than a second"),
        (whole == 1, "1 second"),
        (whole < 60, f"{whole} seconds"),
        (minutes == 1, "About a minute"),
        (minutes < 60, f"{minutes} minutes"),
        (hours == 1, "About an hour"),
        (hours < 48, f"{hours} hours"),
        (hours < 24 * 7 * 2, f"{days} days"),
        (hours < 24 * 30 * 2, f"{days // 7} weeks"),
        (hours < 24 * 365 * 2, f"{days // 30} months"),
    )
    return next((text for holds, text in steps if holds), f"{days // 365} years")


def _since(moment: int | None, now: int) -> float:
    return max(now - (moment if moment is not None else now), 0) / _SECOND


def _code(exit_code: int | None) -> str:
    return str(exit_code) if exit_code is not None else "unknown"
