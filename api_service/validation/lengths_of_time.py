"""Lengths of time of a request, in nanoseconds."""

from __future__ import annotations

from common.errors import Violation

MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND
_LONGEST = 365 * 24 * 3600 * SECOND  # what is counted from now must stay a date


def validate_length(length: int, field: str) -> list[Violation]:
    """0 means not given."""
    if length == 0 or MILLISECOND <= length <= _LONGEST:
        return []
    why = f"{length / SECOND:g} s is no usable length of time; give 1 ms to 365 days, or leave it out for the default"
    return [Violation(field=field, description=why)]
