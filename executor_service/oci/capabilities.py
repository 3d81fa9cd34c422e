"""Linux capabilities (capabilities(7)): those there are, those this process can hand on, those a container holds."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

# By their numbers, linux/capability.h.
_IN_ORDER = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES: tuple[str, ...] = tuple(f"CAP_{name}" for name in _IN_ORDER.split())


@cache
def bounding_set() -> frozenset[str]:
    """What a program started by this process can hold at most (proc_pid_status(5))."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd:"))
    mask = int(line.split()[1], 16)
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def in_order(names: Iterable[str]) -> list[str]:
    """In the kernel's order, each once."""
    wanted = frozenset(names)
    return [name for name in CAPABILITIES if name in wanted]


def process_capabilities(granted: Iterable[str], *, uid: int) -> dict[str, list[str]]:
    """The OCI `process.capabilities` object.

    Inheritable and ambient stay empty (CVE-2022-24769). A user other than root keeps the bounding set, so that file
    capabilities and setuid programs still work, but holds nothing itself.
    """
    bounding = in_order(granted)
    held = bounding if uid == 0 else []
    return {"bounding": bounding, "effective": held, "permitted": held, "inheritable": [], "ambient": []}
