"""Cgroups an engine leaves behind: found by name in every mounted hierarchy, removed when empty. Source: cgroups(7)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def named(name: str) -> list[Path]:
    """Cgroups called `name` at the top of any hierarchy, cgroup v1 or v2."""
    return [path for path in (_ROOT / name, *_ROOT.glob(f"*/{name}")) if path.is_dir()]


def remove(name: str) -> None:
    """Remove these cgroups and all below them; one that still has processes stays and is found again by `named`."""
    for top in named(name):
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
