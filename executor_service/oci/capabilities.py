"""Linux capabilities (capabilities(7)) as Docker gives them to a container."""

from __future__ import annotations

# Docker's default set since 1.2: enough for distribution images, nothing that reaches the host.
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


def process_capabilities(granted: tuple[str, ...], *, uid: int) -> dict[str, list[str]]:
    """The OCI `process.capabilities` object.

    Inheritable and ambient stay empty (CVE-2022-24769). A user other than root keeps the bounding set, so that file
    capabilities and setuid programs still work, but holds nothing itself.
    """
    held = list(granted) if uid == 0 else []
    return {"bounding": list(granted), "effective": held, "permitted": held, "inheritable": [], "ambient": []}
