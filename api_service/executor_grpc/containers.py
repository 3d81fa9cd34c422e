"""The containers of a node over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from slipway.executor.v1 import runtime_service_pb2 as pb2
from slipway.executor.v1.runtime_service_pb2_grpc import RuntimeServiceStub

from api_service.conversion.executor.container_spec import (
    endpoint_to_proto,
    published_ports_to_proto,
    resources_to_proto,
    restart_policy_to_proto,
    spec_to_proto,
)
from api_service.conversion.executor.journal import entry_from_proto
from api_service.conversion.executor.logs import log_lines_from_proto, log_query_to_proto
from api_service.conversion.executor.stats import process_from_proto, stats_from_proto
from api_service.conversion.executor.streams import (
    attach_answer_from_proto,
    attach_requests,
    exec_answer_from_proto,
    exec_requests,
    set_size,
)
from api_service.deadline import Deadline
from api_service.executor_client.container_spec import ContainerSpec, EndpointSpec, PublishedPort
from api_service.executor_client.containers import NodeContainers
from api_service.executor_client.journal import JournalEntry
from api_service.executor_client.logs import LogLine, LogQuery
from api_service.executor_client.stats import ContainerStats, Process
from api_service.executor_client.streams import AttachTarget, ExecAnswer, ExecSpec, StreamInput, StreamOutput
from api_service.executor_grpc.calls import NodeCalls
from api_service.records.config import ConsoleSize, RestartPolicy
from api_service.records.resources import Resources


class GrpcContainers:
    def __init__(self, runtime: RuntimeServiceStub, calls: NodeCalls) -> None:
        self._runtime = runtime
        self._calls = calls

    async def create(self, spec: ContainerSpec, *, deadline: Deadline) -> None:
        request = pb2.CreateContainerRequest(spec=spec_to_proto(spec))
        await self._calls.answer(self._runtime.CreateContainer(request, timeout=deadline.remaining))

    async def start(self, container_id: str, *, start_id: str, deadline: Deadline) -> JournalEntry:
        request = pb2.StartContainerRequest(container_id=container_id, start_id=start_id)
        answer = await self._calls.answer(self._runtime.StartContainer(request, timeout=deadline.remaining))
        return entry_from_proto(answer.entry)

    async def signal(self, container_id: str, *, signal: int, deadline: Deadline) -> None:
        request = pb2.SignalContainerRequest(container_id=container_id, signal=signal)
        await self._calls.answer(self._runtime.SignalContainer(request, timeout=deadline.remaining))

    async def stop(self, container_id: str, *, signal: int, timeout: int, deadline: Deadline) -> JournalEntry | None:
        request = pb2.StopContainerRequest(container_id=container_id, signal=signal, timeout=timeout)
        answer = await self._calls.answer(self._runtime.StopContainer(request, timeout=deadline.remaining))
        return entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def pause(self, container_id: str, *, deadline: Deadline) -> JournalEntry | None:
        request = pb2.PauseContainerRequest(container_id=container_id)
        answer = await self._calls.answer(self._runtime.PauseContainer(request, timeout=deadline.remaining))
        return entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def unpause(self, container_id: str, *, deadline: Deadline) -> JournalEntry | None:
        request = pb2.UnpauseContainerRequest(container_id=container_id)
        answer = await self._calls.answer(self._runtime.UnpauseContainer(request, timeout=deadline.remaining))
        return entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def update(
        self,
        container_id: str,
        *,
        resources: Resources,
        restart_policy: RestartPolicy,
        published_ports: Sequence[PublishedPort],
        deadline: Deadline,
    ) -> JournalEntry:
        request = pb2.UpdateContainerRequest(
            container_id=container_id,
            resources=resources_to_proto(resources),
            restart_policy=restart_policy_to_proto(restart_policy),
            published_ports=published_ports_to_proto(published_ports),
        )
        answer = await self._calls.answer(self._runtime.UpdateContainer(request, timeout=deadline.remaining))
        return entry_from_proto(answer.entry)

    async def remove(self, container_id: str, *, deadline: Deadline) -> None:
        request = pb2.RemoveContainerRequest(container_id=container_id)
        await self._calls.answer(self._runtime.RemoveContainer(request, timeout=deadline.remaining))

    async def connect_network(
        self, container_id: str, endpoint: EndpointSpec, *, deadline: Deadline
    ) -> JournalEntry | None:
        request = pb2.ConnectNetworkRequest(container_id=container_id, endpoint=endpoint_to_proto(endpoint))
        answer = await self._calls.answer(self._runtime.ConnectNetwork(request, timeout=deadline.remaining))
        return entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def disconnect_network(
        self, container_id: str, network_id: str, *, deadline: Deadline
    ) -> JournalEntry | None:
        request = pb2.DisconnectNetworkRequest(container_id=container_id, network_id=network_id)
        answer = await self._calls.answer(self._runtime.DisconnectNetwork(request, timeout=deadline.remaining))
        return entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def read_stats(self, container_ids: Sequence[str], *, deadline: Deadline) -> Sequence[ContainerStats]:
        request = pb2.ReadStatsRequest(container_ids=container_ids)
        answer = await self._calls.answer(self._runtime.ReadStats(request, timeout=deadline.remaining))
        return [stats_from_proto(stats) for stats in answer.containers]

    async def list_processes(self, container_id: str, *, deadline: Deadline) -> Sequence[Process]:
        request = pb2.ListProcessesRequest(container_id=container_id)
        answer = await self._calls.answer(self._runtime.ListProcesses(request, timeout=deadline.remaining))
        return [process_from_proto(process) for process in answer.processes]

    async def read_logs(self, query: LogQuery) -> AsyncGenerator[Sequence[LogLine]]:
        call = self._runtime.ReadLogs(log_query_to_proto(query))
        with self._calls.stream(call):
            async for message in call:
                yield log_lines_from_proto(message.lines)

    async def exec(self, spec: ExecSpec, inputs: AsyncIterator[StreamInput]) -> AsyncGenerator[ExecAnswer]:
        begun = asyncio.Event()
        call = self._runtime.Exec(exec_requests(spec, inputs, begun))
        with contextlib.ExitStack() as stack, self._calls.stream(call):
            stack.callback(begun.set)
            async for message in call:
                begun.set()
                yield exec_answer_from_proto(message)

    async def attach(
        self, target: AttachTarget, inputs: AsyncIterator[StreamInput]
    ) -> AsyncGenerator[StreamOutput | None]:
        begun = asyncio.Event()
        call = self._runtime.AttachContainer(attach_requests(target, inputs, begun))
        with contextlib.ExitStack() as stack, self._calls.stream(call):
            stack.callback(begun.set)
            async for message in call:
                begun.set()
                if message.ended:
                    return
                yield attach_answer_from_proto(message)

    async def resize_terminal(self, container_id: str, size: ConsoleSize, *, deadline: Deadline) -> None:
        request = pb2.ResizeTerminalRequest(container_id=container_id)
        set_size(request, size)
        await self._calls.answer(self._runtime.ResizeTerminal(request, timeout=deadline.remaining))

    async def resize_exec(self, exec_id: str, size: ConsoleSize, *, deadline: Deadline) -> None:
        request = pb2.ResizeExecTerminalRequest(exec_id=exec_id)
        set_size(request, size)
        await self._calls.answer(self._runtime.ResizeExecTerminal(request, timeout=deadline.remaining))


_: type[NodeContainers] = GrpcContainers
