"""What a node that comes back could not be rid of: it keeps no other container from its work, and the node from its
lease only when it may run there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import structlog

from api_service.deadline import Deadline
from api_service.executor_client.snapshot import ContainerSnapshot
from api_service.nodes.registry import Node
from common.errors import Aborted, DeadlineExceeded, SlipwayError, Unavailable

_log = structlog.get_logger(__name__)

_SNAPSHOT_TIME = 60.0  # seconds


class Leftovers:
    """Of one node, at one of its returns."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._elsewhere: dict[str, SlipwayError] = {}
        self._halted: dict[str, SlipwayError] = {}

    def removing(self, container_id: str) -> AbstractContextManager[None]:
        """Around the removal of one that is another node's by now."""
        return self._noted(self._elsewhere, container_id)

    def stopping(self, container_id: str) -> AbstractContextManager[None]:
        """Around the stop of one that was stopped while the node was away."""
        return self._noted(self._halted, container_id)

    @contextmanager
    def _noted(self, failed: dict[str, SlipwayError], container_id: str) -> Iterator[None]:
        """What is wrong with the node, the store or who else works on it, is raised."""
        try:
            yield
        except (Unavailable, DeadlineExceeded, Aborted):
            raise
        except SlipwayError as error:
            _log.error("left on a node", node=self._node.name, container=container_id, error=error.message)
            failed[container_id] = error

    @property
    def any(self) -> bool:
        return bool(self._elsewhere or self._halted)

    def stop_failed(self, container_id: str) -> bool:
        return container_id in self._halted

    async def danger(self) -> str:
        """Of one of them that may run there, or would by itself, by what the node says now; empty: none does."""
        if not self.any:
            return ""
        snapshot = await self._node.executor.snapshot(deadline=Deadline.after(_SNAPSHOT_TIME))
        for container in snapshot.containers:
            if (error := self._error(container)) is not None:
                return f"container {container.container_id[:12]} may run there, which must not: {error.message}"
        return ""

    def _error(self, container: ContainerSnapshot) -> SlipwayError | None:
        """Why it is there, if that matters. One that runs elsewhere must be past any start that is on its way here."""
        error = self._elsewhere.get(container.container_id)
        if error is not None and (container.may_run or not container.removing):
            return error
        return self._halted.get(container.container_id) if container.may_run else None
