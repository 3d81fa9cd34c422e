"""Whether a container is started again, and when. Pure.

The rules and the numbers are Docker's restart manager's: the delay begins at 100 ms, doubles with each restart in a row
up to a minute, and begins anew after a run of ten seconds; a container's policy may have numbers of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from executor_service.restart import RestartCondition, RestartPolicy, RestartState

_SECOND = 1_000_000_000  # nanoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The end of a run, or of the attempt to start one. `failed`: it ended with another code than 0, nobody knows with
    which, it was ended because it was unhealthy, or it could not be started. `stopped`: somebody wanted it to end.
    `ran`: seconds. `at`: nanoseconds since the epoch."""

    failed: bool
    at: int
    stopped: bool = False
    ran: float = 0.0


def after_end(policy: RestartPolicy, state: RestartState, end: End) -> RestartState | None:
    """The restart that is due now; None: it stays as it is."""
    if end.stopped or not _restarts(policy, state, end):
        return None
    delay = _delay(policy, state, end)
    return RestartState(count=state.count + 1, delay=delay, next_start=end.at + round(delay * _SECOND))


def after_boot(policy: RestartPolicy, state: RestartState, end: End) -> RestartState | None:
    """The same for what does not run after the machine was restarted; `end` is that of its last run. `always` starts
    even what had been stopped, and nothing waits."""
    if (end.stopped and policy.condition is not RestartCondition.ALWAYS) or not _restarts(policy, state, end):
        return None
    return RestartState(count=state.count + 1, next_start=end.at)


def _restarts(policy: RestartPolicy, state: RestartState, end: End) -> bool:
    match policy.condition:
        case RestartCondition.ALWAYS | RestartCondition.UNLESS_STOPPED:
            return True
        case RestartCondition.ON_FAILURE:
            limit = policy.maximum_retry_count
            return end.failed and (limit == 0 or state.count < limit)
        case RestartCondition.NEVER:
            return False


def _delay(policy: RestartPolicy, state: RestartState, end: End) -> float:
    if state.delay == 0 or end.ran >= policy.reset_after:
        return min(policy.initial_delay, policy.max_delay)
    return min(state.delay * policy.multiplier, policy.max_delay)
