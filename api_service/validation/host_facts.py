"""What of the node the validators need to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """`runtimes`: names of the node's OCI runtimes, its default first, never empty."""

    runtimes: tuple[str, ...]
    ipv4_forwarding: bool = True
    recursive_read_only: bool = True

    @property
    def default_runtime(self) -> str:
        return self.runtimes[0]
