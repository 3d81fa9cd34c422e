"""Kernel parameters, sysctl(8): a container may set those of its own namespaces. Source: docker run(1), --sysctl;
namespaces(7)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from api_service.validation.namespace_modes import HOST, joined_container
from api_service.validation.network_mode import has_own_namespace
from common.errors import Violation

# Words joined by dots: what a name may hold besides could lead to another file below /proc/sys.
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+")
_IPC = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_MAX_VALUE = 1024
# Docker's since 20.10: nothing a container does with its own network is the node's business.
_ANY_PORT = {"net.ipv4.ip_unprivileged_port_start": "0"}
_PING = "net.ipv4.ping_group_range"
_EVERY_GROUP = 2**31


def normalise_sysctls(sysctls: Mapping[str, str], *, network_mode: str, groups: int = 0) -> dict[str, str]:
    """`groups`: how many the container has, if not all: the kernel takes no other."""
    if not has_own_namespace(network_mode):
        return dict(sysctls)
    return _ANY_PORT | {_PING: f"0 {(groups or _EVERY_GROUP) - 1}"} | dict(sysctls)


def validate_sysctls(
    sysctls: Mapping[str, str], *, network_mode: str, ipc_mode: str, uts_mode: str, domainname: str, field: str
) -> list[Violation]:
    violations: list[Violation] = []
    for name, value in sysctls.items():
        path = f"{field}[{json.dumps(name[:80])}]"
        why = _fault(name, network_mode=network_mode, ipc_mode=ipc_mode, uts_mode=uts_mode, domainname=domainname)
        if why:
            violations.append(Violation(field=path, description=why))
        if len(value) > _MAX_VALUE or not value.replace("\t", " ").isprintable():
            why = f"its value must be one line of at most {_MAX_VALUE} printable characters"
            violations.append(Violation(field=path, description=why))
    return violations


def _fault(name: str, *, network_mode: str, ipc_mode: str, uts_mode: str, domainname: str) -> str | None:
    if not _NAME.fullmatch(name):
        return "is not the name of a kernel parameter: words of letters, digits, '_' and '-', joined by '.'"
    if name.startswith("net."):
        return "is the node's with network mode 'host'; set it there" if network_mode == HOST else None
    if name in _IPC or name.startswith("fs.mqueue."):
        shared = ipc_mode == HOST or joined_container(ipc_mode) is not None
        return f"needs an IPC namespace of the container's own, not {ipc_mode[:80]!r}" if shared else None
    if name == "kernel.domainname":
        if uts_mode == HOST:
            return "is the node's with UTS mode 'host'; set it there"
        return "is what config.domainname sets; give one of them" if domainname else None
    return "is no parameter of a container's own namespaces (net.*, fs.mqueue.*, kernel.msg*, kernel.sem, kernel.shm*)"
