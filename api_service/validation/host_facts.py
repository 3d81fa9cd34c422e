"""What of the node the validators need to know."""

from __future__ import annotations

from dataclasses import dataclass

CGROUP_FEATURES = frozenset(
    {
        "memory",
        "memory_swap",
        "memory_swappiness",
        "cpu_shares",
        "cpu_cfs",
        "cpuset",
        "pids",
        "blkio_weight",
        "blkio_throttle",
    }
)
"""Every limit that a node may be able to hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """`runtimes`: names of the node's OCI runtimes, its default first, never empty. `cgroup_features`: of
    `CGROUP_FEATURES`. `cpuset_*`: lists as `0-3`; they are empty, and `cpus` 0, when the node did not say.
    `capabilities`: those it can give. `cgroup_layout`: `v1`, `hybrid` or `v2`. `init`: whether it has one.
    `remapped_ids`: how many users and groups a container has on a node that remaps them, else 0."""

    runtimes: tuple[str, ...]
    ipv4_forwarding: bool = True
    recursive_read_only: bool = True
    cgroup_features: frozenset[str] = CGROUP_FEATURES
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cpus: int = 0
    capabilities: frozenset[str] = frozenset()
    cgroup_layout: str = ""
    seccomp: bool = False
    apparmor: bool = False
    init: bool = False
    remapped_ids: int = 0

    @property
    def default_runtime(self) -> str:
        return self.runtimes[0]


def any_host(runtime: str) -> HostFacts:
    """One that can do all there is, for a node that nobody has heard of yet; `runtime` is what a request asks for."""
    return HostFacts(runtimes=(runtime or "any",))
