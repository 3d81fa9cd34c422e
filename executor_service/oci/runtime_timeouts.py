"""How long a runtime and a monitor may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeTimeouts:
    """Seconds. `exit_file` is how long a monitor may take to report a container that has ended, `relay` what a log that
    nobody waits for gets to be written after that."""

    create: float = 30.0
    start: float = 10.0
    delete: float = 10.0
    exit_file: float = 5.0
    relay: float = 1.0
