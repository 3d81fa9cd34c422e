"""Where paths of the node are looked up: the mount namespace that the executor came from, which it may have left."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from executor_service.network.worker import in_own_thread
from executor_service.storage.mount_tree import enter_mounts
from executor_service.storage.threads import finish, settle

T = TypeVar("T")


class HostNamespace:
    """`descriptor` is the namespace's; None when this process is in it."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = descriptor

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work there, to its end. What it opens can be used here."""
        if (descriptor := self._descriptor) is None:
            return await finish(work)

        def there() -> T:
            enter_mounts(descriptor)
            return work()

        return await settle(in_own_thread(there))
