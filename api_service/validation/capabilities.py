"""Linux capabilities (capabilities(7)): their names, and which a container has in the end. Source: moby
daemon/pkg/oci/caps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from api_service.validation.host_facts import HostFacts
from common.errors import Violation

ALL = "ALL"

# What a container has when nobody says otherwise: Docker's fourteen.
DEFAULT_CAPABILITIES: tuple[str, ...] = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)
# By their numbers, linux/capability.h.
_IN_ORDER = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES: tuple[str, ...] = tuple(f"CAP_{name}" for name in _IN_ORDER.split())


def normalise_capabilities(names: Iterable[str]) -> tuple[str, ...]:
    """`CAP_…` or `ALL`, each once, in the order given."""
    return tuple(dict.fromkeys(_spelled(name) for name in names))


def validate_capabilities(names: Sequence[str], field: str) -> list[Violation]:
    rule = "give a name of capabilities(7), with or without CAP_, or ALL"
    return [
        Violation(field=f"{field}[{index}]", description=f"{name[:64]!r} is not a capability: {rule}")
        for index, name in enumerate(names)
        if not _known(name)
    ]


def validate_available(names: Sequence[str], facts: HostFacts, field: str) -> list[Violation]:
    """What is asked for by its name and cannot be had is refused; `ALL` means what there is."""
    way = "leave it out, or let the node's executor have it"
    return [
        Violation(field=f"{field}[{index}]", description=f"the node has no {_spelled(name)} to give: {way}")
        for index, name in enumerate(names)
        if _spelled(name) in CAPABILITIES and _spelled(name) not in facts.capabilities
    ]


def final_capabilities(*, add: Iterable[str], drop: Iterable[str], privileged: bool) -> tuple[str, ...]:
    """Of normalised names. A node leaves out those that it lacks."""
    added, dropped = frozenset(add), frozenset(drop)
    if privileged:
        return CAPABILITIES
    if ALL in added:
        held = frozenset(CAPABILITIES) - dropped
    elif ALL in dropped:
        held = added
    else:
        held = (frozenset(DEFAULT_CAPABILITIES) - dropped) | added
    return tuple(name for name in CAPABILITIES if name in held)


def _spelled(name: str) -> str:
    upper = name.upper()
    return upper if upper == ALL or upper.startswith("CAP_") else f"CAP_{upper}"


def _known(name: str) -> bool:
    return name.isascii() and (_spelled(name) == ALL or _spelled(name) in CAPABILITIES)
