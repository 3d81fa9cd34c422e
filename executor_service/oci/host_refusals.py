"""What a specification asks for and this host cannot give, told at create rather than at every start.

The executor's own limits are the containers': whatever it starts inherits them. Fields are those of the public API.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

from common.errors import InvalidArgument, Violation
from executor_service.container import ContainerSpec, Seccomp
from executor_service.oci.devices import find_devices
from executor_service.oci.host import HostFacts
from executor_service.oci.security import seccomp_filter
from executor_service.storage.project_quotas import quota_obstacle

_RESOURCE = "CAP_SYS_RESOURCE"


def host_refusals(spec: ContainerSpec, host: HostFacts, *, storage: Path) -> list[Violation]:
    """Blocks: looks at the devices asked for, and at the file system of the roots."""
    return [
        *_root_size(spec, storage),
        *_devices(spec),
        *_seccomp(spec, host),
        *_programs(spec, host),
        *_rlimits(spec, host),
        *_oom_score_adj(spec, host),
    ]


def _root_size(spec: ContainerSpec, storage: Path) -> Iterator[Violation]:
    if spec.root_size:
        why = f"the root filesystem cannot be held to a size: {quota_obstacle(storage)}"
        way_out = "leave it out, and give what grows a tmpfs or a volume with a size"
        yield Violation(field='host_config.storage_opt["size"]', description=f"{why}; {way_out}")


def _devices(spec: ContainerSpec) -> Iterator[Violation]:
    if spec.devices:
        try:
            find_devices(spec)
        except InvalidArgument as error:
            yield from error.violations


def _seccomp(spec: ContainerSpec, host: HostFacts) -> Iterator[Violation]:
    if spec.security.seccomp is not Seccomp.PROFILE:
        return
    if not host.seccomp:
        why = "the node's kernel cannot filter system calls; take the seccomp profile out"
        yield Violation(field="host_config.security_opt", description=why)
        return
    try:
        seccomp_filter(spec.security, host)
    except InvalidArgument as error:
        yield from error.violations


def _programs(spec: ContainerSpec, host: HostFacts) -> Iterator[Violation]:
    if spec.init and host.init is None:
        why = "the node has no init for containers; install tini there, or give false"
        yield Violation(field="host_config.init", description=why)
    profile = spec.security.apparmor_profile
    if profile and not host.apparmor:
        why = f"the node has no AppArmor for the profile {profile[:64]!r}; take it out, or give apparmor=unconfined"
        yield Violation(field="host_config.security_opt", description=why)


def _rlimits(spec: ContainerSpec, host: HostFacts) -> Iterator[Violation]:
    if _RESOURCE in host.capabilities:
        return
    for limit in spec.rlimits:
        number = getattr(resource, limit.name, None)
        if number is None:
            continue
        own = resource.getrlimit(number)[1]
        if own != resource.RLIM_INFINITY and (limit.hard < 0 or limit.hard > own):
            name = limit.name.removeprefix("RLIMIT_").lower()
            why = f"the node's own limit is {own}, and without {_RESOURCE} it cannot give more; ask for {own} at most"
            yield Violation(field=f"host_config.ulimits[{name}].hard", description=why)


def _oom_score_adj(spec: ContainerSpec, host: HostFacts) -> Iterator[Violation]:
    if _RESOURCE in host.capabilities:
        return
    own = min(int(Path("/proc/self/oom_score_adj").read_text()), 0)
    if spec.oom_score_adj < own:
        why = f"the node cannot go below {own} without {_RESOURCE}; ask for {own} at least"
        yield Violation(field="host_config.oom_score_adj", description=why)
