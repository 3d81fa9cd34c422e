"""Where paths of the node are looked up: the mount namespace that the executor came from, which it may have left."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from common.errors import Internal
from executor_service.storage.mount_tree import enter_mounts
from executor_service.threads import finish, in_own_thread, to_the_end

T = TypeVar("T")


def node_mounts() -> int:
    """A descriptor of the mount namespace in which people name paths of the node: process 1's, which is the host's also
    for an executor in a container with the host's process ids; ours, where that may not be looked at. To be called
    before this process leaves the namespace it was started in."""
    for process in ("1", "self"):
        try:
            return os.open(f"/proc/{process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError:
            continue
    raise Internal("/proc/self/ns/mnt cannot be opened; is /proc mounted?")


class HostNamespace:
    """`descriptor` is the namespace's; None when this process has always been in it."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work there, to its end. What it opens can be used here."""
        if (descriptor := self._descriptor) is None or self._is_ours(descriptor):
            return await finish(work)

        def there() -> T:
            enter_mounts(descriptor)
            return work()

        return await to_the_end(in_own_thread(there))

    @staticmethod
    def _is_ours(descriptor: int) -> bool:
        return os.fstat(descriptor).st_ino == os.stat("/proc/self/ns/mnt").st_ino  # noqa: PTH116 - a link of /proc
