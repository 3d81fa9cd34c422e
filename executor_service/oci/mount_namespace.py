"""A mount namespace in which a hybrid cgroup host looks like a plain v1 host, for crun.

crun refuses hosts that have v1 controllers and a v2 hierarchy at `/sys/fs/cgroup/unified` with controllers in it. So
the executor lives in a mount namespace of its own, whose `/sys/fs/cgroup` is a read-only tmpfs with the v1
hierarchies bound into it and no `unified`. (Unmounting `unified` alone would not do: crun then makes plain
directories in the place where it was, in the host's tmpfs.) The namespace is pinned to a file, so that a restarted
executor finds the mounts of the one before. It receives the host's new mounts (propagation slave), and nothing on the
host changes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
from pathlib import Path

import structlog

from common.errors import Internal
from executor_service.oci.cgroups import CgroupLayout, detect_layout
from executor_service.oci.runtimes import RuntimeCatalog, RuntimeKind
from executor_service.run import MINIMAL_ENVIRONMENT

_log = structlog.get_logger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)

_CLONE_NEWNS = 0x00020000
_MS_BIND = 4096
_MS_UNBINDABLE = 1 << 17
_MNT_DETACH = 2

# Run in the new namespace; says `ready`, then keeps the namespace alive until its standard input closes.
_PREPARE = """
set -eu
new=$1
mount -t tmpfs -o mode=755,nosuid,nodev,noexec,size=64k cgroup "$new"
for path in /sys/fs/cgroup/*; do
    name=${path##*/}
    if [ "$name" = unified ]; then continue; fi
    if [ -L "$path" ]; then cp -P "$path" "$new/$name"; continue; fi
    mkdir "$new/$name"
    mount --rbind "$path" "$new/$name"
done
mount -o remount,ro "$new"
mount --move "$new" /sys/fs/cgroup
echo ready
read -r _ || true
"""


def enter_runtime_mount_namespace(run_dir: Path, catalog: RuntimeCatalog) -> bool:
    """Enter the pinned namespace if this host and this runtime need it, making it when it is not there.

    Call it first thing in the executor's main thread, before there is any other: the kernel moves single threads only,
    and later ones inherit. Returns whether this process is now in it; raises Internal when that fails.
    """
    kind = catalog.resolve("").kind
    layout = detect_layout()
    pin = _pin(run_dir)
    if kind is not RuntimeKind.CRUN or layout is not CgroupLayout.HYBRID:
        _log.info("no mount namespace of our own is needed", runtime=kind.value, cgroups=layout.value)
        return False
    made = not _is_pinned(pin)
    if made:
        _make(pin)
    descriptor = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, _CLONE_NEWNS), f"enter the mount namespace {pin}")
    finally:
        os.close(descriptor)
    _log.info(
        "crun does not take hybrid cgroups: running in a mount namespace that shows v1 alone", pin=str(pin), made=made
    )
    return True


def remove_runtime_mount_namespace(run_dir: Path) -> None:
    """Unpin the namespace; it is gone when the last process in it has ended. Call it on the host's side. Idempotent."""
    pin = _pin(run_dir)
    for path in (pin, pin.parent):
        while _is_mount_point(path):
            _check(_libc.umount2(os.fsencode(path), _MNT_DETACH), f"unmount {path}")
    if pin.parent.is_dir():
        shutil.rmtree(pin.parent)


def _pin(run_dir: Path) -> Path:
    return run_dir / "mntns" / "runtime"


def _is_pinned(pin: Path) -> bool:
    return pin.exists() and _is_mount_point(pin)


def _is_mount_point(path: Path) -> bool:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split(" ", 5)[4] == str(path) for line in lines)


def _make(pin: Path) -> None:
    """Make the namespace and pin it. A namespace can only be pinned on a mount that it does not receive itself, and the
    kernel mounts no copy of what holds a pin, as containers ask for with `/`: so the directory of the pin is made a
    mount first, which is private and left out of copies."""
    directory = pin.parent
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_mount_point(directory):
        _mount(directory, directory, _MS_BIND)
    # Also one that is there: in a container whose run directory is the host's, it may be a copy of that of the one
    # before, which is shared.
    _mount(None, directory, _MS_UNBINDABLE)
    pin.touch(mode=0o600)
    staging = directory / "cgroup"
    staging.mkdir(exist_ok=True)
    # The kernel pins only namespaces younger than our own. Linux 6.18 tells their age by a number that grows on each
    # processor for itself, so a new namespace may count as older. Made on the processor where ours was, it never does.
    allowed = os.sched_getaffinity(0)
    try:
        for processor in sorted(allowed):
            os.sched_setaffinity(0, {processor})
            if _make_on_this_processor(pin, staging):
                return
    finally:
        os.sched_setaffinity(0, allowed)
    raise Internal(f"the kernel refuses to pin a mount namespace on {pin}; pin it by hand with unshare --mount={pin}")


def _make_on_this_processor(pin: Path, staging: Path) -> bool:
    argv = ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", _PREPARE, "sh", str(staging)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(MINIMAL_ENVIRONMENT)
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        if child.stdout.readline() != b"ready\n":
            said = child.stderr.read().decode(errors="replace").strip()
            raise Internal(f"the mount namespace for crun cannot be made: {said}")
        source = Path(f"/proc/{child.pid}/ns/mnt")
        if _libc.mount(os.fsencode(source), os.fsencode(pin), None, ctypes.c_ulong(_MS_BIND), None) == 0:
            return True
        if ctypes.get_errno() != errno.EINVAL:
            raise Internal(f"cannot mount {source} on {pin}: {os.strerror(ctypes.get_errno())}")
        return False


def _mount(source: Path | None, target: Path, flags: int) -> None:
    name = None if source is None else os.fsencode(source)
    _check(_libc.mount(name, os.fsencode(target), None, ctypes.c_ulong(flags), None), f"mount {source} on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        raise Internal(f"cannot {what}: {os.strerror(ctypes.get_errno())}")
