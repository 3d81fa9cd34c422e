"""What the executor demands of a restart policy, a health check and dependencies: all that would let a container be
started or probed without a pause, or let its specification write a request of its own. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite

from executor_service.container import CONTAINER_ID, ContainerSpec
from executor_service.health import ExecProbe, HealthCheck, HttpProbe
from executor_service.restart import RestartCondition

_SHORTEST = 0.001  # seconds
_LONGEST = 366 * 24 * 3600.0  # seconds; what is counted from now must stay a date
_TARGET = re.compile(r"/[!-~]*")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # token, RFC 9110
_HEADER_VALUE = re.compile(r"[ -~]*")

_Rules = Iterator[tuple[str, str]]


def supervision_rules(spec: ContainerSpec) -> _Rules:
    """Field and sentence of each that is broken."""
    policy = spec.restart_policy
    if policy.condition is not RestartCondition.NEVER:
        yield from _length("restart_policy.initial_delay", policy.initial_delay)
        yield from _length("restart_policy.max_delay", policy.max_delay)
        if not 1 <= policy.multiplier <= 10:
            yield "restart_policy.multiplier", f"{policy.multiplier} must be from 1 to 10"
        if policy.on_unhealthy and not 1 <= spec.stop_signal <= 64:
            yield "stop_signal", f"{spec.stop_signal} must be from 1 to 64, for what is stopped when it is unhealthy"
    if spec.health_check is not None:
        yield from _health(spec.health_check)
    for index, dependency in enumerate(spec.dependencies):
        if not CONTAINER_ID.fullmatch(dependency.container_id):
            yield f"dependencies[{index}].container_id", "must be 64 lower-case hexadecimal characters"
        yield from _length(f"dependencies[{index}].timeout", dependency.timeout)


def _health(check: HealthCheck) -> _Rules:
    for name in ("interval", "timeout", "start_interval"):
        yield from _length(f"health_check.{name}", getattr(check, name))
    if check.retries < 1:
        yield "health_check.retries", f"{check.retries} must be at least 1"
    probe = check.probe
    if isinstance(probe, ExecProbe):
        if not probe.args or not probe.args[0] or any("\0" in word for word in probe.args):
            yield "health_check.exec.args", "must name a program, and hold no NUL character"
        return
    if not 1 <= probe.port <= 65535:
        yield "health_check.port", f"{probe.port} must be from 1 to 65535"
    if isinstance(probe, HttpProbe):
        if not _TARGET.fullmatch(probe.path):
            yield "health_check.http.path", f"{probe.path[:64]!a} must be '/' and printable ASCII without blanks"
        for name, value in probe.headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                yield f"health_check.http.headers[{name[:64]!a}]", "must be a name and a value on one line (RFC 9110)"


def _length(field: str, seconds: float) -> _Rules:
    if not isfinite(seconds) or not _SHORTEST <= seconds <= _LONGEST:
        yield field, f"{seconds} s must be from {_SHORTEST:g} s to a year"
