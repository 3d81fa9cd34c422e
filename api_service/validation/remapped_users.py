"""What a container cannot be whose users are others on the node: one on a node with `userns_remap`, unless it asks for
`userns_mode` `host`.

Source: moby daemon/daemon_unix.go (verifyPlatformContainerSettings), user_namespaces(7).
"""

from __future__ import annotations

from api_service.records.config import HostConfig
from api_service.validation.host_facts import HostFacts
from api_service.validation.namespace_modes import HOST
from api_service.validation.security_opt import security_options
from common.errors import Violation

_WAY_OUT = "give userns_mode 'host' as well, or leave it out"


def is_remapped(host: HostConfig, facts: HostFacts) -> bool:
    return facts.remapped_ids > 0 and host.userns_mode != HOST


def validate_remapped(host: HostConfig, facts: HostFacts, *, network_mode: str, field: str) -> list[Violation]:
    """`network_mode` is the one that will hold."""
    if not is_remapped(host, facts):
        return []
    asked = {
        "privileged": host.privileged,
        "network_mode": network_mode == HOST,
        "pid_mode": host.pid_mode == HOST,
        "ipc_mode": host.ipc_mode == HOST,
    }
    found = [
        Violation(field=f"{field}.{name}", description=f"{what} with the node's remapped users; {_WAY_OUT}")
        for name, what in (
            ("privileged", "a container cannot be privileged"),
            ("network_mode", "a container cannot share the node's network"),
            ("pid_mode", "a container cannot share the node's processes"),
            ("ipc_mode", "a container cannot share the node's IPC namespace"),
        )
        if asked[name]
    ]
    for index, option in enumerate(host.security_opt):
        if option.startswith("writable-cgroups") and security_options([option]).writable_cgroups:
            why = f"cgroups cannot be writable with the node's remapped users; {_WAY_OUT}"
            found.append(Violation(field=f"{field}.security_opt[{index}]", description=why))
    return found
