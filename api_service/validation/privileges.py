"""What a container may do beyond its own files, and what it shares with its node: every rule of that part of a request,
with those that two fields decide together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from api_service.records.config import ContainerConfig, HostConfig
from api_service.validation.capabilities import (
    ALL,
    CAPABILITIES,
    normalise_capabilities,
    validate_available,
    validate_capabilities,
)
from api_service.validation.device_requests import validate_device_requests
from api_service.validation.devices import normalise_device, validate_device_rules, validate_devices
from api_service.validation.host_facts import HostFacts
from api_service.validation.namespace_modes import (
    HOST,
    normalise_cgroupns_mode,
    normalise_init,
    normalise_ipc_mode,
    validate_cgroupns_mode,
    validate_init,
    validate_ipc_mode,
    validate_pid_mode,
    validate_userns_mode,
    validate_uts_mode,
)
from api_service.validation.process import clean_path
from api_service.validation.remapped_users import is_remapped
from api_service.validation.security_opt import security_options, validate_security_opt
from api_service.validation.sysctls import normalise_sysctls, validate_sysctls
from api_service.validation.ulimits import validate_ulimits
from common.errors import Violation

_MAX_ID = 2**31 - 1
_MAX_PATH = 4095  # bytes, PATH_MAX without its NUL


def validate_privileges(
    config: ContainerConfig, host: HostConfig, facts: HostFacts, *, network_mode: str, field: str
) -> list[Violation]:
    """`network_mode` is the one that will hold."""
    return [
        *validate_capabilities(host.cap_add, f"{field}.cap_add"),
        *validate_available(host.cap_add, facts, f"{field}.cap_add"),
        *validate_capabilities(host.cap_drop, f"{field}.cap_drop"),
        *validate_security_opt(host.security_opt, facts, f"{field}.security_opt"),
        *_validate_paths(host, field),
        *_validate_groups(host.group_add, f"{field}.group_add"),
        *validate_ipc_mode(host.ipc_mode, f"{field}.ipc_mode"),
        *validate_pid_mode(host.pid_mode, f"{field}.pid_mode"),
        *_validate_uts(config, host, field),
        *validate_userns_mode(host.userns_mode, f"{field}.userns_mode"),
        *validate_cgroupns_mode(
            host.cgroupns_mode, privileged=host.privileged, facts=facts, field=f"{field}.cgroupns_mode"
        ),
        *validate_sysctls(
            host.sysctls,
            network_mode=network_mode,
            ipc_mode=host.ipc_mode,
            uts_mode=host.uts_mode,
            domainname=config.domainname,
            field=f"{field}.sysctls",
        ),
        *validate_ulimits(host.ulimits, f"{field}.ulimits"),
        *validate_devices(host.devices, f"{field}.devices"),
        *validate_device_rules(host.device_cgroup_rules, f"{field}.device_cgroup_rules"),
        *validate_device_requests(host.device_requests, f"{field}.device_requests"),
        *validate_init(host.init, host.pid_mode, facts, f"{field}.init"),
    ]


def normalise_privileges(host: HostConfig, facts: HostFacts, *, network_mode: str) -> HostConfig:
    """With every default that is not the node's own list of paths."""
    groups = facts.remapped_ids if is_remapped(host, facts) else 0
    return replace(
        host,
        cap_add=normalise_capabilities(host.cap_add),
        cap_drop=normalise_capabilities(host.cap_drop),
        ipc_mode=normalise_ipc_mode(host.ipc_mode),
        cgroupns_mode=normalise_cgroupns_mode(host.cgroupns_mode, facts),
        sysctls=normalise_sysctls(host.sysctls, network_mode=network_mode, groups=groups),
        devices=tuple(normalise_device(device) for device in host.devices),
        init=normalise_init(host.init, host.pid_mode, facts),
    )


def privilege_warnings(host: HostConfig, facts: HostFacts) -> list[str]:
    """Of a normalised request."""
    found: list[str] = []
    lacking = [name for name in CAPABILITIES if name not in facts.capabilities]
    if lacking and (host.privileged or ALL in host.cap_add):
        found.append(f"The node cannot give {', '.join(lacking)}; the container does without.")
    if host.privileged and (host.cap_add or host.cap_drop):
        found.append("host_config.cap_add and cap_drop have no effect on a privileged container.")
    unfiltered = host.privileged or security_options(host.security_opt).seccomp == "unconfined"
    if not facts.seccomp and not unfiltered:
        found.append("The node's kernel cannot filter system calls; the container may make all of them.")
    return found


def _validate_paths(host: HostConfig, field: str) -> list[Violation]:
    violations: list[Violation] = []
    unconfined = any(option in ("systempaths=unconfined", "systempaths:unconfined") for option in host.security_opt)
    for name, paths in (("masked_paths", host.masked_paths), ("readonly_paths", host.readonly_paths)):
        if paths and unconfined:
            why = "contradicts security_opt 'systempaths=unconfined'; leave one of them out"
            violations.append(Violation(field=f"{field}.{name}", description=why))
        for index, path in enumerate(paths or ()):
            plain = path.startswith("/") and path != "/" and clean_path(path) == path
            if not plain or not path.isprintable() or len(path.encode(errors="surrogatepass")) > _MAX_PATH:
                why = f"{path[:80]!r} must be an absolute path below '/', without '.', '..' and doubled slashes"
                violations.append(Violation(field=f"{field}.{name}.paths[{index}]", description=why))
    return violations


def _validate_groups(groups: Sequence[str], field: str) -> list[Violation]:
    """Whether a name exists is found out at start."""
    violations: list[Violation] = []
    for index, group in enumerate(groups):
        if not group or len(group) > 256 or ":" in group or " " in group or not group.isprintable():
            why = f"{group[:64]!r} is neither the name nor the number of a group"
        elif group.isdecimal() and int(group) > _MAX_ID:
            why = f"the id {group} is larger than {_MAX_ID}, the largest there is"
        else:
            continue
        violations.append(Violation(field=f"{field}[{index}]", description=why))
    return violations


def _validate_uts(config: ContainerConfig, host: HostConfig, field: str) -> list[Violation]:
    violations = validate_uts_mode(host.uts_mode, f"{field}.uts_mode")
    if host.uts_mode == HOST:
        violations += [
            Violation(
                field=f"config.{name}",
                description="would be the node's with host_config.uts_mode 'host'; leave one of them out",
            )
            for name, given in (("hostname", config.hostname), ("domainname", config.domainname))
            if given
        ]
    return violations
