"""The restart manager's table: who is started again, and after how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from executor_service.restart import RestartCondition, RestartPolicy, RestartState
from executor_service.supervision.restart_decision import End, after_boot, after_end

SECOND = 1_000_000_000
NEVER, ALWAYS = RestartCondition.NEVER, RestartCondition.ALWAYS
UNLESS_STOPPED, ON_FAILURE = RestartCondition.UNLESS_STOPPED, RestartCondition.ON_FAILURE
FAILED, FINE = End(failed=True, at=SECOND), End(failed=False, at=SECOND)
STOPPED = End(failed=True, at=SECOND, stopped=True)


@pytest.mark.parametrize(
    ("condition", "end", "restarts", "restarts_after_boot"),
    [
        (NEVER, FAILED, False, False),
        (NEVER, FINE, False, False),
        (ALWAYS, FAILED, True, True),
        (ALWAYS, FINE, True, True),
        (ALWAYS, STOPPED, False, True),
        (UNLESS_STOPPED, FAILED, True, True),
        (UNLESS_STOPPED, FINE, True, True),
        (UNLESS_STOPPED, STOPPED, False, False),
        (ON_FAILURE, FAILED, True, True),
        (ON_FAILURE, FINE, False, False),
        (ON_FAILURE, STOPPED, False, False),
    ],
)
def test_policy(condition: RestartCondition, end: End, restarts: bool, restarts_after_boot: bool) -> None:
    policy = RestartPolicy(condition=condition)
    assert (after_end(policy, RestartState(), end) is not None) is restarts
    assert (after_boot(policy, RestartState(), end) is not None) is restarts_after_boot


@pytest.mark.parametrize(("limit", "count", "restarts"), [(0, 1000, True), (3, 2, True), (3, 3, False), (1, 0, True)])
def test_on_failure_counts(limit: int, count: int, restarts: bool) -> None:
    policy = RestartPolicy(condition=ON_FAILURE, maximum_retry_count=limit)
    for decide in (after_end, after_boot):
        assert (decide(policy, RestartState(count=count), FAILED) is not None) is restarts


@pytest.mark.parametrize(
    ("policy", "ran", "delays"),
    [
        (RestartPolicy(), 0, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60]),
        (RestartPolicy(), 9.9, [0.1, 0.2, 0.4]),
        (RestartPolicy(), 10, [0.1, 0.1, 0.1]),
        (RestartPolicy(initial_delay=1, multiplier=3, max_delay=8), 0, [1, 3, 8, 8]),
        (RestartPolicy(initial_delay=2, multiplier=1), 0, [2, 2, 2]),
        (RestartPolicy(initial_delay=90, max_delay=5), 0, [5, 5]),
        (RestartPolicy(reset_after=1), 1, [0.1, 0.1]),
    ],
)
def test_delays(policy: RestartPolicy, ran: float, delays: list[float]) -> None:
    policy = replace(policy, condition=ALWAYS)
    state, found = RestartState(), []
    for number in range(len(delays)):
        restart = after_end(policy, state, End(failed=True, at=5 * SECOND, ran=ran))
        assert restart is not None
        assert restart.count == number + 1
        assert restart.next_start == 5 * SECOND + round(restart.delay * SECOND)
        found.append(restart.delay)
        state = replace(restart, next_start=None)
    assert found == pytest.approx(delays)


def test_nothing_waits_after_a_boot() -> None:
    restart = after_boot(RestartPolicy(condition=ALWAYS), RestartState(count=4, delay=30), FINE)
    assert restart == RestartState(count=5, delay=0, next_start=FINE.at)
