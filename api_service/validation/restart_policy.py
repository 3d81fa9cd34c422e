"""When a container is started again by its node: Docker's policies, and the numbers that are Docker's by default."""

from __future__ import annotations

from dataclasses import replace

from api_service.records.config import RestartPolicy
from api_service.records.health import NO_CHECK, HealthConfig
from api_service.validation.lengths_of_time import MILLISECOND, SECOND, validate_length
from common.errors import Violation

NO = "no"
ON_FAILURE = "on-failure"

_NAMES = (NO, "always", "unless-stopped", ON_FAILURE)
_INITIAL_DELAY = 100 * MILLISECOND
_MAX_DELAY = 60 * SECOND
_MULTIPLIER = 2.0
_MULTIPLIERS = (1.0, 10.0)
_RESET_AFTER = 10 * SECOND


def validate_restart_policy(policy: RestartPolicy, field: str, *, auto_remove: bool) -> list[Violation]:
    """`auto_remove`: whether the container removes itself when its process ends."""
    found = [
        *_validate_name(policy, field),
        *validate_length(policy.initial_delay, f"{field}.initial_delay"),
        *validate_length(policy.max_delay, f"{field}.max_delay"),
        *validate_length(policy.reset_after, f"{field}.reset_after"),
    ]
    if policy.multiplier != 0 and not _MULTIPLIERS[0] <= policy.multiplier <= _MULTIPLIERS[1]:
        why = f"{policy.multiplier:g} is not from 1 to 10; leave it out for 2"
        found.append(Violation(field=f"{field}.multiplier", description=why))
    given = normalise_restart_policy(policy)
    if given.max_delay < given.initial_delay:
        why = f"{given.max_delay / SECOND:g} s is less than initial_delay, {given.initial_delay / SECOND:g} s"
        found.append(Violation(field=f"{field}.max_delay", description=why))
    if policy.on_unhealthy and given.name == NO:
        why = f"needs a policy that restarts; give name one of {', '.join(map(repr, _NAMES[1:]))}"
        found.append(Violation(field=f"{field}.on_unhealthy", description=why))
    if auto_remove and given.name != NO:
        why = f"{given.name!r} cannot be had together with auto_remove: a container that restarts never ends; drop one"
        found.append(Violation(field=f"{field}.name", description=why))
    return found


def validate_unhealthy(policy: RestartPolicy, check: HealthConfig | None, field: str) -> list[Violation]:
    """`check` as it is after the merge with the image's."""
    if not policy.on_unhealthy or (check is not None and check.test[:1] != (NO_CHECK,)):
        return []
    why = "needs a health check, and neither the container nor its image has one; give config.healthcheck"
    return [Violation(field=f"{field}.on_unhealthy", description=why)]


def normalise_restart_policy(policy: RestartPolicy) -> RestartPolicy:
    return replace(
        policy,
        name=policy.name or NO,
        initial_delay=policy.initial_delay or _INITIAL_DELAY,
        max_delay=policy.max_delay or _MAX_DELAY,
        multiplier=policy.multiplier or _MULTIPLIER,
        reset_after=policy.reset_after or _RESET_AFTER,
    )


def _validate_name(policy: RestartPolicy, field: str) -> list[Violation]:
    name, count = policy.name or NO, policy.maximum_retry_count
    if name not in _NAMES:
        why = f"{name[:64]!r} is not a restart policy; give one of {', '.join(map(repr, _NAMES))}, or nothing for 'no'"
        return [Violation(field=f"{field}.name", description=why)]
    if name == ON_FAILURE and count < 0:
        why = f"{count} is negative; give the restarts at most, or 0 for any number"
    elif name != ON_FAILURE and count != 0:
        why = f"only '{ON_FAILURE}' counts its restarts, '{name}' does not; leave it out"
    else:
        return []
    return [Violation(field=f"{field}.maximum_retry_count", description=why)]
