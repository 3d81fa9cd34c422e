"""The system calls of network namespaces that Python 3.11 lacks: unshare(2), setns(2), mount(2), umount2(2)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

THREAD_NETWORK_NAMESPACE = "/proc/thread-self/ns/net"  # /proc/self would name the main thread's

_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_SHARED = 1 << 20
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)


def unshare_network() -> None:
    """Move the calling thread, and no other, into a new network namespace. It is then of no use for other work."""
    _check(_libc.unshare(_CLONE_NEWNET), "unshare(CLONE_NEWNET)")


def enter_network(namespace: int) -> None:
    """Move the calling thread into the network namespace that the descriptor names."""
    _check(_libc.setns(namespace, _CLONE_NEWNET), "setns")


def bind_mount(source: str | Path, target: Path) -> None:
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND, None), f"bind mount on {target}")


def make_shared(target: Path) -> None:
    """Let mounts and unmounts below `target` reach the mount namespaces copied from ours (mount_namespaces(7))."""
    _check(_libc.mount(None, os.fsencode(target), None, _MS_SHARED, None), f"make {target} a shared mount")


def detach_mount(target: Path) -> None:
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
