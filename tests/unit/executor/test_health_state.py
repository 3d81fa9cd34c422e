"""What probes make of a container's health, and when they are due."""

from __future__ import annotations

import pytest

from executor_service.health import HealthCheck, HealthStatus, ProbeResult, TcpProbe
from executor_service.journal_entries import HealthChanged
from executor_service.supervision.health_state import after_probe, is_news, wait_before_probe

SECOND = 1_000_000_000
CHECK = HealthCheck(probe=TcpProbe(port=1), interval=30, timeout=5, start_period=0, start_interval=5, retries=3)
YOUNG = HealthCheck(probe=TcpProbe(port=1), interval=30, timeout=5, start_period=10, start_interval=2, retries=2)
FRESH = HealthChanged(status=HealthStatus.STARTING)


def _history(check: HealthCheck, *probes: tuple[float, int]) -> list[tuple[str, int]]:
    """Status and streak after each probe, given as seconds after the start and exit code."""
    health, found = FRESH, []
    for at, code in probes:
        moment = 100 * SECOND + int(at * SECOND)
        result = ProbeResult(started_at=moment, ended_at=moment, exit_code=code)
        health = after_probe(check, health, result, started_at=100 * SECOND)
        found.append((health.status.value, health.failing_streak))
    return found


@pytest.mark.parametrize(
    ("check", "probes", "states"),
    [
        (CHECK, [(1, 0)], [("healthy", 0)]),
        (
            CHECK,
            [(1, 1), (2, 1), (3, 1), (4, 1)],
            [("starting", 1), ("starting", 2), ("unhealthy", 3), ("unhealthy", 3)],
        ),
        (CHECK, [(1, 0), (2, -1), (3, 0)], [("healthy", 0), ("healthy", 1), ("healthy", 0)]),
        (CHECK, [(1, 1), (2, 1), (3, 2), (4, 0)], [("starting", 1), ("starting", 2), ("unhealthy", 3), ("healthy", 0)]),
        # Failures of the start period do not count until it has been healthy once.
        (
            YOUNG,
            [(1, 1), (9.9, 1), (10, 1), (11, 1)],
            [("starting", 0), ("starting", 0), ("starting", 1), ("unhealthy", 2)],
        ),
        (YOUNG, [(1, 0), (2, 1), (3, 1)], [("healthy", 0), ("healthy", 1), ("unhealthy", 2)]),
    ],
)
def test_history(check: HealthCheck, probes: list[tuple[float, int]], states: list[tuple[str, int]]) -> None:
    assert _history(check, *probes) == states


def test_five_results_are_kept_the_oldest_first() -> None:
    health = FRESH
    for number in range(7):
        result = ProbeResult(started_at=number, ended_at=number, exit_code=0)
        health = after_probe(CHECK, health, result, started_at=0)
    assert [result.started_at for result in health.log] == [2, 3, 4, 5, 6]


def test_only_a_change_is_news() -> None:
    result = ProbeResult(started_at=0, ended_at=0, exit_code=1)
    failing = HealthChanged(status=HealthStatus.UNHEALTHY, failing_streak=3)
    assert is_news(FRESH, after_probe(CHECK, FRESH, result, started_at=0))
    assert not is_news(failing, after_probe(CHECK, failing, result, started_at=0))


@pytest.mark.parametrize(
    ("status", "age", "seconds"),
    [
        (HealthStatus.STARTING, 0, 2),
        (HealthStatus.STARTING, 9.9, 2),
        (HealthStatus.STARTING, 10, 30),
        (HealthStatus.HEALTHY, 1, 30),
    ],
)
def test_interval(status: HealthStatus, age: float, seconds: float) -> None:
    assert wait_before_probe(YOUNG, HealthChanged(status=status), age=age) == seconds
