"""Limits of setrlimit(2). Source: docker/go-units ulimit.go"""

from __future__ import annotations

from collections.abc import Sequence

from api_service.records.resources import Ulimit
from common.errors import Violation

_NAMES = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice"),
    *("nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)


def validate_ulimits(ulimits: Sequence[Ulimit], field: str) -> list[Violation]:
    violations: list[Violation] = []
    seen: set[str] = set()
    for index, limit in enumerate(ulimits):
        path = f"{field}[{index}]"
        if limit.name not in _NAMES:
            why = f"{limit.name[:64]!r} is not a limit; give one of {', '.join(_NAMES)}"
            violations.append(Violation(field=f"{path}.name", description=why))
        elif limit.name in seen:
            why = f"{limit.name!r} is given twice; give it once"
            violations.append(Violation(field=f"{path}.name", description=why))
        seen.add(limit.name)
        violations += _values(limit, path)
    return violations


def rlimit_name(name: str) -> str:
    return f"RLIMIT_{name.upper()}"


def _values(limit: Ulimit, path: str) -> list[Violation]:
    violations = [
        Violation(field=f"{path}.{name}", description=f"{value} must be 0 or more, or -1 for unlimited")
        for name, value in (("soft", limit.soft), ("hard", limit.hard))
        if value < -1
    ]
    if not violations and limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
        soft = "unlimited" if limit.soft == -1 else limit.soft
        why = f"{soft} is above the hard limit, {limit.hard}; lower it, or give a higher hard limit"
        violations.append(Violation(field=f"{path}.soft", description=why))
    return violations
