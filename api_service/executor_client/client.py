"""The executor of a node. Every method takes the deadline after which its answer is of no use any more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from api_service.deadline import Deadline
from api_service.executor_client.containers import NodeContainers
from api_service.executor_client.files import ContainerFiles
from api_service.executor_client.images import NodeImages
from api_service.executor_client.journal import JournalAnswer
from api_service.executor_client.networks import NodeNetworks
from api_service.executor_client.node import DiskUsage, NodeFacts
from api_service.executor_client.snapshot import NodeSnapshot
from api_service.executor_client.volumes import NodeVolumes


class ExecutorClient(Protocol):
    """Every method, those of its parts too, raises Unavailable when the node does not answer, DeadlineExceeded, and the
    errors named with it. Every call may be repeated after a lost answer."""

    @property
    def containers(self) -> NodeContainers: ...

    @property
    def files(self) -> ContainerFiles: ...

    @property
    def images(self) -> NodeImages: ...

    @property
    def volumes(self) -> NodeVolumes: ...

    @property
    def networks(self) -> NodeNetworks: ...

    def meant_for(self, executor_id: str) -> None:
        """From now on any other executor than this one refuses the calls, which then raise Unavailable
        (`ANOTHER_EXECUTOR`)."""

    def expect(self, *, ready: bool) -> None:
        """Whether the records say that the node answers: then a call waits a few seconds for a connection, if there is
        none. At first none does."""

    def connect_anew(self) -> None:
        """The node was away, so later calls go over a new connection, if the old one may not have noticed."""

    async def facts(self, *, deadline: Deadline) -> NodeFacts:
        """Raises FailedPrecondition (reason `NODE_INCOMPATIBLE`) for an executor that speaks another protocol."""

    async def renew_lease(self, after: str, *, ttl: float, deadline: Deadline) -> str:
        """The node's word of this moment, for the next renewal. `after`: the word of the answer before, from which the
        lease then runs for `ttl` seconds; empty: nothing is renewed."""

    async def disk_usage(self, *, deadline: Deadline, containers: Sequence[str] = ()) -> DiskUsage:
        """Of everything; with `containers` only of their writable layers."""

    async def snapshot(self, *, deadline: Deadline) -> NodeSnapshot: ...

    def follow_journal(self, *, journal_id: str, after: int) -> AsyncGenerator[JournalAnswer]:
        """Transitions after a position, without end. Raises OutOfRange when the journal does not know the position."""
