"""The cgroup that a container's own is made below."""

from __future__ import annotations

import re

from common.errors import Violation

_PATH = re.compile(r"(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+")
_MAX = 1024  # characters
_ID = re.compile(r"[a-f0-9]{64}")


def validate_cgroup_parent(parent: str, field: str) -> list[Violation]:
    """Empty is the node's own."""
    if not parent:
        return []
    if len(parent) > _MAX or not _PATH.fullmatch(parent):
        why = (
            f"{parent[:80]!r} is no absolute path below the root of the cgroups: begin it with '/', use letters, "
            "digits and _ . - in its parts, which must not begin with '.', as in /tenants/blue"
        )
        return [Violation(field=field, description=why)]
    if any(_ID.fullmatch(part) for part in parent.split("/")):
        return [Violation(field=field, description=f"{parent[:80]!r} lies in a container's own cgroup; name another")]
    return []
