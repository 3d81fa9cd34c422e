"""What a container may do and shares, taken apart for the executor: a record's words, resolved."""

from __future__ import annotations

from api_service.executor_client.container_spec import DeviceRule, NamespaceMode, Namespaces, Rlimit, Seccomp, Security
from api_service.records.config import HostConfig
from api_service.validation.capabilities import final_capabilities
from api_service.validation.devices import parse_device_rule
from api_service.validation.namespace_modes import HOST, PRIVATE, joined_container
from api_service.validation.security_opt import BUILTIN, UNCONFINED, security_options
from api_service.validation.ulimits import rlimit_name


def container_security(host: HostConfig) -> Security:
    """Of a normalised configuration."""
    options = security_options(host.security_opt)
    mode, profile = _seccomp(options.seccomp, privileged=host.privileged)
    hidden = () if options.system_paths_unconfined else None
    return Security(
        capabilities=final_capabilities(add=host.cap_add, drop=host.cap_drop, privileged=host.privileged),
        privileged=host.privileged,
        no_new_privileges=options.no_new_privileges,
        seccomp=mode,
        seccomp_profile=profile,
        apparmor_profile=options.apparmor,
        masked_paths=host.masked_paths if hidden is None else hidden,
        readonly_paths=host.readonly_paths if hidden is None else hidden,
        writable_cgroups=options.writable_cgroups,
    )


def container_namespaces(host: HostConfig, *, remapped: bool = False) -> Namespaces:
    """Of modes whose containers are full ids."""
    ipc, pid = joined_container(host.ipc_mode), joined_container(host.pid_mode)
    return Namespaces(
        ipc=NamespaceMode.CONTAINER if ipc else NamespaceMode(host.ipc_mode or PRIVATE),
        ipc_container=ipc or "",
        pid=NamespaceMode.CONTAINER if pid else NamespaceMode(host.pid_mode or PRIVATE),
        pid_container=pid or "",
        host_uts=host.uts_mode == HOST,
        private_cgroup=host.cgroupns_mode == PRIVATE,
        remapped_users=remapped,
        node_users=host.userns_mode == HOST,
    )


def container_rlimits(host: HostConfig) -> tuple[Rlimit, ...]:
    return tuple(Rlimit(name=rlimit_name(limit.name), soft=limit.soft, hard=limit.hard) for limit in host.ulimits)


def container_device_rules(host: HostConfig) -> tuple[DeviceRule, ...]:
    return tuple(parse_device_rule(rule) for rule in host.device_cgroup_rules)


def _seccomp(said: str, *, privileged: bool) -> tuple[Seccomp, str]:
    """A privileged container has no filter unless it asks for one."""
    if said == UNCONFINED or (privileged and not said):
        return Seccomp.UNCONFINED, ""
    return (Seccomp.PROFILE, said) if said and said != BUILTIN else (Seccomp.DEFAULT, "")
