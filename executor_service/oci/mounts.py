"""The mounts of a container, with Docker's options (OCI runtime-spec, config.md#mounts), and the paths hidden in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from executor_service.container import ContainerSpec, NamespaceMode


class Mount(TypedDict):
    destination: str
    type: str
    source: str
    options: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFiles:
    """The host's files that are bound over the container's `/etc/resolv.conf`, `/etc/hostname` and `/etc/hosts`."""

    resolv_conf: Path
    hostname: Path
    hosts: Path

    @classmethod
    def in_directory(cls, directory: Path) -> NetworkFiles:
        return cls(resolv_conf=directory / "resolv.conf", hostname=directory / "hostname", hosts=directory / "hosts")


MASKED_PATHS: tuple[str, ...] = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS: tuple[str, ...] = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

# With a read-only root these stay writable: programs cannot run without them and they hold nothing that persists.
_SHM = "/dev/shm"  # noqa: S108 - the container's, not ours
_WRITABLE_WITH_READONLY_ROOT = frozenset({"/proc", "/dev", "/dev/pts", "/dev/mqueue", _SHM})


def container_mounts(spec: ContainerSpec, *, files: NetworkFiles, shm: Path | None = None) -> list[Mount]:
    """Every mount in the order the runtime makes them, parents first. `shm` is a directory for /dev/shm instead of
    memory of the container's own.

    `/dev` is always a tmpfs: a `/dev` that the image made a symlink would have the runtime write into the host.
    """
    security = spec.security
    sysfs_mode = [] if security.privileged else ["ro"]
    cgroup_mode = [] if security.privileged or security.writable_cgroups else ["ro"]
    mounts = [
        _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", *sysfs_mode),
        _mount("/sys/fs/cgroup", "cgroup", *cgroup_mode, "nosuid", "noexec", "nodev"),
        _mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        *_shm(spec, shm),
        _bind(files.resolv_conf, "/etc/resolv.conf"),
        _bind(files.hostname, "/etc/hostname"),
        _bind(files.hosts, "/etc/hosts"),
    ]
    if spec.readonly_rootfs:
        for mount in mounts:
            if mount["destination"] not in _WRITABLE_WITH_READONLY_ROOT and "ro" not in mount["options"]:
                mount["options"].append("ro")
    return mounts


def _shm(spec: ContainerSpec, source: Path | None) -> list[Mount]:
    if spec.namespaces.ipc is NamespaceMode.NONE:
        return []
    if source is not None:
        return [_bind(source, _SHM)]
    options = ("nosuid", "noexec", "nodev", "mode=1777", f"size={spec.shm_size}")
    return [_mount(_SHM, "tmpfs", *options, source="shm")]


def _mount(destination: str, kind: str, *options: str, source: str = "") -> Mount:
    return {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}


def _bind(source: Path, destination: str) -> Mount:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", "rprivate"]}
