"""What a container waits for before it starts, as far as the request alone says. The containers named are looked up by
`api_service.operations.dependency_resolve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from api_service.records.config import Dependency
from api_service.validation.lengths_of_time import SECOND, validate_length
from common.errors import Violation

STARTED, HEALTHY, COMPLETED = "started", "healthy", "completed_successfully"

_CONDITIONS = (STARTED, HEALTHY, COMPLETED)
_MOST = 256
_TIMEOUT = 60 * SECOND


def validate_dependencies(dependencies: Sequence[Dependency], field: str) -> list[Violation]:
    if len(dependencies) > _MOST:
        return [Violation(field=field, description=f"names {len(dependencies)} containers, at most {_MOST} can be")]
    found: list[Violation] = []
    for index, dependency in enumerate(dependencies):
        if not 1 <= len(dependency.container) <= 256:
            why = "names no container; give its name, id or a unique prefix of the id"
            found.append(Violation(field=f"{field}[{index}].container", description=why))
        if dependency.condition and dependency.condition not in _CONDITIONS:
            known = ", ".join(map(repr, _CONDITIONS))
            why = f"{dependency.condition[:64]!r} is none of {known}; leave it out for '{STARTED}'"
            found.append(Violation(field=f"{field}[{index}].condition", description=why))
        found += validate_length(dependency.timeout, f"{field}[{index}].timeout")
    return found


def normalise_dependency(dependency: Dependency) -> Dependency:
    return replace(dependency, condition=dependency.condition or STARTED, timeout=dependency.timeout or _TIMEOUT)
