"""What a container's process may do, as a runtime takes it: capabilities, system calls, hidden paths, its limits
(OCI runtime-spec, config.md#process and config-linux.md)."""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import FailedPrecondition, InvalidArgument, Violation
from executor_service.container import ContainerSpec, Seccomp, Security
from executor_service.limits import Rlimit
from executor_service.oci.capabilities import process_capabilities
from executor_service.oci.host import HostFacts
from executor_service.oci.mounts import MASKED_PATHS, READONLY_PATHS
from executor_service.oci.seccomp import custom_seccomp, default_seccomp

_UNLIMITED = 2**64 - 1  # RLIM_INFINITY, getrlimit(2)


def process_security(security: Security, *, uid: int, host: HostFacts) -> dict[str, object]:
    """The part of an OCI `process` that says what it may do; the same for every process of the container."""
    found: dict[str, object] = {
        "capabilities": process_capabilities(given_capabilities(security, host), uid=uid),
        "noNewPrivileges": security.no_new_privileges,
    }
    if security.apparmor_profile and host.apparmor:
        found["apparmorProfile"] = security.apparmor_profile
    return found


def given_capabilities(security: Security, host: HostFacts) -> frozenset[str]:
    """Without those the node itself lacks: a runtime would fail over them."""
    return host.capabilities.intersection(security.capabilities)


def process_rlimits(rlimits: tuple[Rlimit, ...]) -> list[dict[str, object]]:
    return [
        {
            "type": limit.name,
            "soft": _UNLIMITED if limit.soft < 0 else limit.soft,
            "hard": _UNLIMITED if limit.hard < 0 else limit.hard,
        }
        for limit in rlimits
    ]


def seccomp_filter(security: Security, host: HostFacts) -> Mapping[str, object] | None:
    """The OCI `linux.seccomp`; None filters nothing. Raises InvalidArgument for what is no profile, FailedPrecondition
    when one is given to a kernel without filters."""
    capabilities = given_capabilities(security, host)
    if security.seccomp is Seccomp.UNCONFINED:
        return None
    if security.seccomp is Seccomp.DEFAULT:
        return default_seccomp(capabilities, host.machine, host.kernel) if host.seccomp else None
    if not host.seccomp:
        raise FailedPrecondition("a seccomp profile needs a kernel with CONFIG_SECCOMP_FILTER, which this node lacks")
    try:
        return custom_seccomp(security.seccomp_profile, capabilities, host.machine, host.kernel)
    except ValueError as error:
        raise InvalidArgument(
            violations=[Violation(field="host_config.security_opt", description=f"seccomp: {error}")]
        ) from error


def masked_paths(spec: ContainerSpec, host: HostFacts) -> list[str]:
    security = spec.security
    if security.masked_paths is not None:
        return list(security.masked_paths)
    return [] if security.privileged else [*MASKED_PATHS, *host.thermal_throttle]


def readonly_paths(spec: ContainerSpec) -> list[str]:
    security = spec.security
    if security.readonly_paths is not None:
        return list(security.readonly_paths)
    return [] if security.privileged else list(READONLY_PATHS)
