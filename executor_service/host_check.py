"""What the host must have, checked before anything is touched: one table, each row with its way out.

Nothing here changes the host. Sources: capabilities(7), cgroups(7), namespaces(7), seccomp(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import SlipwayError
from executor_service.kernel import RESOLVE_IN_ROOT, openat2
from executor_service.oci.cgroups import CGROUP_ROOT, CgroupLayout, detect_layout
from executor_service.oci.host import INIT

# Those of Docker's default container, which the executor must hold to hand them on, and its own two.
_CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_ADMIN": 12,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "SYS_ADMIN": 21,
    "MKNOD": 27,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
_NAMESPACES = ("mnt", "pid", "net", "ipc", "uts")
_CONTROLLERS = ("cpu", "memory", "pids")
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One row. `found` says what is there, `remedy` what to do when it is not enough; `essential`: not without it."""

    name: str
    ok: bool
    found: str
    remedy: str
    essential: bool = True

    @property
    def sentence(self) -> str:
        return f"{self.name}: {self.found}; {self.remedy}"


def check_host() -> list[Check]:
    """Every row, essential ones first. Blocks for a few milliseconds."""
    rows = [
        _capabilities(),
        _namespaces(),
        _file_system("overlay"),
        _cgroups(),
        _seccomp(),
        _system_call("pidfd", "Linux 5.3", _open_pidfd),
        _system_call("openat2", "Linux 5.6", _open_with_openat2),
        _program("conmon", package="conmon"),
        _runtime(),
        _library("libnftables.so.1", package="libnftables1"),
        _program("tar", package="tar"),
        _mount_tools(),
        _init(),
        _controllers(),
        _ipv6(),
    ]
    return sorted(rows, key=lambda row: not row.essential)


def refuses(rows: Iterable[Check]) -> bool:
    """Whether something essential is missing."""
    return any(row.essential and not row.ok for row in rows)


def warnings(rows: Iterable[Check]) -> list[str]:
    """What is missing and can be done without, a sentence each."""
    return [row.sentence for row in rows if not row.ok and not row.essential]


def table(rows: Sequence[Check]) -> str:
    """For people, one line a row, the ways out below it."""
    width = max(len(row.name) for row in rows)
    lines = []
    for row in rows:
        state = "ok" if row.ok else "MISSING" if row.essential else "missing"
        lines.append(f"{row.name:<{width}}  {state:<7}  {row.found}")
        if not row.ok:
            lines.append(f"{'':<{width}}           → {row.remedy}")
    return "\n".join(lines)


def _capabilities() -> Check:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    held = int(line.split()[1], 16)
    missing = [f"CAP_{name}" for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    return Check(
        name="privileges",
        ok=not missing,
        found=f"user {os.geteuid()}" + (f", without {', '.join(missing)}" if missing else ", all capabilities needed"),
        remedy="run as root (sudo), or in a container with --privileged",
    )


def _namespaces() -> Check:
    missing = [name for name in _NAMESPACES if not Path(f"/proc/self/ns/{name}").exists()]
    return Check(
        name="namespaces",
        ok=not missing,
        found=f"the kernel lacks {', '.join(missing)}" if missing else ", ".join(_NAMESPACES),
        remedy="use a kernel with CONFIG_NAMESPACES and all of its kinds",
    )


def _file_system(name: str) -> Check:
    known = any(line.split()[-1] == name for line in Path("/proc/filesystems").read_text().splitlines())
    loadable = not known and any(Path("/lib/modules", platform.release()).glob(f"kernel/fs/**/{name}.ko*"))
    return Check(
        name=f"{name} file system",
        ok=known or loadable,
        found="in the kernel"
        if known
        else "a module, loaded when it is needed"
        if loadable
        else "unknown to the kernel",
        remedy=f"modprobe {name}, or use a kernel with CONFIG_OVERLAY_FS",
    )


def _cgroups() -> Check:
    remedy = f"mount cgroup2 on {CGROUP_ROOT} (systemd does), or give this container the host's cgroups"
    try:
        layout = detect_layout()
    except SlipwayError as error:
        return Check(name="cgroups", ok=False, found=error.message, remedy=remedy)
    writable = any(os.access(path, os.W_OK) for path in (CGROUP_ROOT, CGROUP_ROOT / "pids", CGROUP_ROOT / "memory"))
    return Check(
        name="cgroups", ok=writable, found=f"{layout.value}" + ("" if writable else ", read-only"), remedy=remedy
    )


def _controllers() -> Check:
    try:
        layout = detect_layout()
    except SlipwayError:
        available: set[str] = set()
    else:
        if layout is CgroupLayout.V2:
            available = set((CGROUP_ROOT / "cgroup.controllers").read_text().split())
        else:
            available = {name for name in _CONTROLLERS if (CGROUP_ROOT / name).is_dir()}
    missing = [name for name in _CONTROLLERS if name not in available]
    return Check(
        name="cgroup controllers",
        ok=not missing,
        found=f"without {', '.join(missing)}" if missing else ", ".join(_CONTROLLERS),
        remedy="limits of that kind will not hold; boot with the controllers enabled (cgroup_enable=)",
        essential=False,
    )


def _seccomp() -> Check:
    ok = Path("/proc/sys/kernel/seccomp/actions_avail").exists()
    return Check(
        name="seccomp filters",
        ok=ok,
        found="in the kernel" if ok else "not in the kernel",
        remedy="containers would run without a system call filter; use a kernel with CONFIG_SECCOMP_FILTER",
        essential=False,
    )


def _system_call(name: str, since: str, call: Callable[[], int]) -> Check:
    try:
        os.close(call())
    except OSError as error:
        found, ok = f"refused: {error.strerror}", False
    else:
        found, ok = "works", True
    return Check(name=name, ok=ok, found=found, remedy=f"use {since} or later, and allow it if this is a container")


def _open_pidfd() -> int:
    return os.pidfd_open(os.getpid())


def _open_with_openat2() -> int:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        return openat2(root, b"proc", flags=os.O_PATH, resolve=RESOLVE_IN_ROOT)
    finally:
        os.close(root)


def _program(name: str, *, package: str) -> Check:
    path = shutil.which(name, path=_SEARCH_PATH)
    return Check(name=name, ok=path is not None, found=path or "not found", remedy=f"apt install {package}")


def _runtime() -> Check:
    found = [path for name in ("crun", "runc") if (path := shutil.which(name, path=_SEARCH_PATH))]
    return Check(
        name="OCI runtime",
        ok=bool(found),
        found=", ".join(found) or "neither crun nor runc",
        remedy="apt install crun",
    )


def _library(name: str, *, package: str) -> Check:
    try:
        ctypes.CDLL(name)
    except OSError:
        return Check(name=name, ok=False, found="not found", remedy=f"apt install {package}")
    return Check(name=name, ok=True, found="loads", remedy="")


def _mount_tools() -> Check:
    missing = [name for name in ("mount", "unshare") if not shutil.which(name, path=_SEARCH_PATH)]
    return Check(
        name="mount, unshare",
        ok=not missing,
        found=f"{', '.join(missing)} not found" if missing else "found",
        remedy="apt install util-linux mount",
    )


def _init() -> Check:
    ok = os.access(INIT, os.X_OK)
    return Check(
        name="init",
        ok=ok,
        found=str(INIT) if ok else f"{INIT} not found",
        remedy="apt install tini; without it a container's own program is process 1, and nobody reaps its orphans",
        essential=False,
    )


def _ipv6() -> Check:
    ok = Path("/proc/sys/net/ipv6").is_dir()
    return Check(
        name="IPv6",
        ok=ok,
        found="in the kernel" if ok else "not in the kernel",
        remedy="the default network gives every container an IPv6 address; boot without ipv6.disable=1",
    )
