"""Moves of processes between cgroups, made fast while some are expected.

The kernel has the first move in a while wait for an RCU grace period (8 ms and more, against 0.1 ms for the following
ones), and a runtime makes one for every container and every exec. Moving ourselves to where we are changes nothing but
starts that wait before the runtime is there; doing it again keeps the following moves fast, however long the runtime
takes to get so far. Source: the kernel's kernel/cgroup/cgroup.c (cgroup_threadgroup_rwsem) and kernel/rcu/sync.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from executor_service.oci.cgroups import CgroupTree
from executor_service.threads import in_own_thread

_AGAIN = 0.005  # seconds; a move is the first in a while again after a grace period, which takes longer than this


class CgroupMoves:
    """Belongs to one event loop. However many moves are expected, one thread sees to it."""

    def __init__(self, tree: CgroupTree) -> None:
        self._tree = tree
        self._expected = 0
        self.keeping: asyncio.Future[None] | None = None  # what goes on in the thread

    @contextlib.contextmanager
    def expected(self) -> Iterator[None]:
        """While it lasts, moves are fast; from some 10 ms after it begins, the sooner the better."""
        self._expected += 1
        self._keep_fast()
        try:
            yield
        finally:
            self._expected -= 1

    def _keep_fast(self) -> None:
        if self._expected and self.keeping is None:
            self.keeping = asyncio.ensure_future(in_own_thread(self._keep_moving))
            self.keeping.add_done_callback(self._kept)

    def _kept(self, kept: asyncio.Future[None]) -> None:
        self.keeping = None
        if kept.cancelled() or kept.exception() is not None:
            return  # no thread is to be had: moves are as slow as they are until the next is expected
        self._keep_fast()  # when somebody came just as it ended

    def _keep_moving(self) -> None:
        while self._expected:
            # What a host does not let us do leaves moves as slow as they are.
            with contextlib.suppress(OSError):
                self._tree.move_to_where_we_are()
            time.sleep(_AGAIN)
