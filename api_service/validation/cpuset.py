"""Lists of processors and memory nodes, as `0-2,5`. Source: cpuset(7), list format"""

from __future__ import annotations

import re

from common.errors import Violation

_MAX_LENGTH = 65536  # characters; a list of every other one of 16384 processors has as many
_PART = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def parse_cpuset(text: str) -> frozenset[int] | None:
    """None for what is no list, or endless."""
    if len(text) > _MAX_LENGTH:
        return None
    found: set[int] = set()
    for part in text.split(","):
        if (match := _PART.fullmatch(part.strip(" "))) is None:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            return None
        found.update(range(first, last + 1))
    return frozenset(found)


def validate_cpuset(text: str, available: str, field: str) -> list[Violation]:
    """`available`: the node's own list; empty when that is not known."""
    wanted = parse_cpuset(text)
    if wanted is None:
        return [Violation(field=field, description=f"{text[:80]!r} is no list of numbers and ranges, as 0-2,5")]
    known = parse_cpuset(available) if available else None
    if known is not None and (missing := wanted - known):
        shown = ", ".join(map(str, sorted(missing)[:8]))
        why = f"{text[:80]!r} asks for {shown}, which the node does not have; available are {available}"
        return [Violation(field=field, description=why)]
    return []


def normalise_cpuset(text: str) -> str:
    """Without the blanks that the kernel would not take."""
    return text.replace(" ", "")
