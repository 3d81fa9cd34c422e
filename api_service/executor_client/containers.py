"""The containers of a node: their lives, their networks, what they use, and talking to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

from api_service.deadline import Deadline
from api_service.executor_client.container_spec import ContainerSpec, EndpointSpec, PublishedPort
from api_service.executor_client.journal import JournalEntry
from api_service.executor_client.logs import LogLine, LogQuery
from api_service.executor_client.stats import ContainerStats, Process
from api_service.executor_client.streams import AttachTarget, ExecAnswer, ExecSpec, StreamInput, StreamOutput
from api_service.records.config import ConsoleSize, RestartPolicy
from api_service.records.resources import Resources


class NodeContainers(Protocol):
    """Every method raises as those of ExecutorClient do, and the errors named with it."""

    async def create(self, spec: ContainerSpec, *, deadline: Deadline) -> None:
        """Lay the container out. Raises FailedPrecondition when it exists with another specification."""

    async def start(self, container_id: str, *, start_id: str, deadline: Deadline) -> JournalEntry:
        """A `Started` or `StartRefused` entry; a repeated `start_id` gets the outcome of the first call."""

    async def signal(self, container_id: str, *, signal: int, deadline: Deadline) -> None:
        """Raises FailedPrecondition when it does not run."""

    async def stop(self, container_id: str, *, signal: int, timeout: int, deadline: Deadline) -> JournalEntry | None:
        """Signal, wait `timeout` seconds (-1: without end), SIGKILL. The `Exited` entry, the `RestartCancelled` one
        when a restart was pending; None when nothing ran."""

    async def pause(self, container_id: str, *, deadline: Deadline) -> JournalEntry | None:
        """The `Paused` entry, None when it was frozen already. Raises FailedPrecondition when it does not run."""

    async def unpause(self, container_id: str, *, deadline: Deadline) -> JournalEntry | None:
        """The `Unpaused` entry, None when it was not frozen. Raises FailedPrecondition when it does not run."""

    async def update(
        self,
        container_id: str,
        *,
        resources: Resources,
        restart_policy: RestartPolicy,
        published_ports: Sequence[PublishedPort],
        deadline: Deadline,
    ) -> JournalEntry:
        """The `Updated` entry. All limits, without `nano_cpus`, a policy that has its defaults, and all ports. Raises
        FailedPrecondition for what the kernel refuses, AlreadyExists for a port that is taken, ResourceExhausted;
        nothing has changed then."""

    async def remove(self, container_id: str, *, deadline: Deadline) -> None:
        """Kill what runs and delete everything of the container. Nothing there: nothing happens."""

    async def connect_network(
        self, container_id: str, endpoint: EndpointSpec, *, deadline: Deadline
    ) -> JournalEntry | None:
        """The `NetworkConnected` entry; None when it is attached so already. Raises FailedPrecondition, AlreadyExists
        for a fixed address that is in use, ResourceExhausted; nothing has changed then."""

    async def disconnect_network(
        self, container_id: str, network_id: str, *, deadline: Deadline
    ) -> JournalEntry | None:
        """The `NetworkDisconnected` entry; None when it was not attached."""

    async def read_stats(self, container_ids: Sequence[str], *, deadline: Deadline) -> Sequence[ContainerStats]:
        """Those that run; without ids all of them."""

    async def list_processes(self, container_id: str, *, deadline: Deadline) -> Sequence[Process]:
        """Raises FailedPrecondition when it does not run."""

    def read_logs(self, query: LogQuery) -> AsyncGenerator[Sequence[LogLine]]:
        """Oldest first, as many at once as came together, never none; with `follow` until the container ends."""

    def exec(self, spec: ExecSpec, inputs: AsyncIterator[StreamInput]) -> AsyncGenerator[ExecAnswer]:
        """First that it runs, then its output, then its `ExecExited` entry, which one that is detached lacks. Closing
        the answers ends the program. Raises InvalidArgument for what cannot be run, FailedPrecondition."""

    def attach(self, target: AttachTarget, inputs: AsyncIterator[StreamInput]) -> AsyncGenerator[StreamOutput | None]:
        """First None, when the attachment stands; then what the process writes, to its end. One that does not run is
        waited for. Raises ResourceExhausted for a reader that is too slow."""

    async def resize_terminal(self, container_id: str, size: ConsoleSize, *, deadline: Deadline) -> None:
        """Raises FailedPrecondition when it does not run or has no terminal."""

    async def resize_exec(self, exec_id: str, size: ConsoleSize, *, deadline: Deadline) -> None:
        """Raises FailedPrecondition when it does not run or has no terminal."""
