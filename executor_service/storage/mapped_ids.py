"""Files whose owners are a container's, while its ids are others on the node.

A copy of a mount can show every file with its owner moved by a user namespace's mapping (mount_setattr(2),
MOUNT_ATTR_IDMAP), and takes new files only from whoever is in that mapping. So layers and volumes keep the container's
own ids on disk, and one image serves containers with and without remapped ids. Everything here blocks.
Source: kernel Documentation/filesystems/idmappings.rst, overlayfs.rst; setfsuid(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from threading import Thread
from typing import TypeVar

from executor_service.user_mapping import UserMapping

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_CAPABILITY_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def as_mapped_root(mapping: UserMapping | None, work: Callable[[], T]) -> T:
    """Run `work` as the one who is root in the container as far as files are concerned, with all privileges of ours; on
    a thread of its own, which ends with it. Without a mapping: at once, as it is."""
    if mapping is None:
        return work()
    results: list[T] = []
    errors: list[BaseException] = []

    def there() -> None:
        try:
            _become_mapped_root(mapping)
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=there, name="mapped-root")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _become_mapped_root(mapping: UserMapping) -> None:
    """The calling thread alone, which is then of no use for other work."""
    _libc.setfsgid(ctypes.c_uint(mapping.first_gid))
    _libc.setfsuid(ctypes.c_uint(mapping.first_uid))
    # The answer is always the id before: asked once more, it is the one that holds.
    if ctypes.c_uint(_libc.setfsuid(ctypes.c_uint(mapping.first_uid))).value != mapping.first_uid:
        raise PermissionError(errno.EPERM, "setfsuid: the executor needs CAP_SETUID")
    # The kernel took away what overrides permissions along with the user id 0.
    header, sets = _Header(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    done = _libc.capget(ctypes.byref(header), sets)
    if done == 0:
        sets[0], sets[3] = sets[1], sets[4]  # effective as permitted
        done = _libc.capset(ctypes.byref(header), sets)
    if done != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"capset: {os.strerror(code)}")
