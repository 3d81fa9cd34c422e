"""`slipway.executor.v1.RuntimeService`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from slipway.executor.v1 import runtime_service_pb2 as pb
from slipway.executor.v1 import runtime_service_pb2_grpc

from executor_service.conversion.container_spec import (
    endpoint_from_proto,
    published_ports_from_proto,
    resources_from_proto,
    size_from_proto,
    spec_from_proto,
)
from executor_service.conversion.journal import entry_to_proto
from executor_service.conversion.logs import log_query_from_proto, log_records_to_proto
from executor_service.conversion.snapshot import snapshot_to_proto
from executor_service.conversion.stats import process_to_proto, stats_to_proto
from executor_service.conversion.streams import (
    attach_answer,
    attach_inputs,
    attach_target,
    exec_answer,
    exec_inputs,
    exec_spec,
)
from executor_service.conversion.supervision import restart_policy_from_proto
from executor_service.journal_entries import JournalEntry
from executor_service.node import Node
from executor_service.operations.container_attach import container_attach
from executor_service.operations.container_create import container_create
from executor_service.operations.container_list import container_list
from executor_service.operations.container_logs import container_logs
from executor_service.operations.container_pause import container_pause, container_unpause
from executor_service.operations.container_remove import container_remove
from executor_service.operations.container_signal import container_signal
from executor_service.operations.container_start import container_start
from executor_service.operations.container_stats import container_processes, container_stats
from executor_service.operations.container_stop import FOREVER, container_stop
from executor_service.operations.container_update import container_update
from executor_service.operations.exec_run import exec_run
from executor_service.operations.network_connect import network_connect, network_disconnect
from executor_service.operations.terminal_resize import container_resize, exec_resize
from executor_service.tasks import Operations

_LONGEST_ABANDONED_STOP = 60  # seconds

_Context = grpc.aio.ServicerContext[Any, Any]


class RuntimeServicer(runtime_service_pb2_grpc.RuntimeServiceServicer):
    def __init__(self, node: Node, operations: Operations) -> None:
        self._node = node
        self._operations = operations

    def _told(self, entry: JournalEntry) -> pb.JournalEntry:
        return entry_to_proto(entry, journal_id=self._node.journal.id)

    async def CreateContainer(
        self, request: pb.CreateContainerRequest, context: _Context
    ) -> pb.CreateContainerResponse:
        create = container_create(self._node, spec_from_proto(request.spec))
        await self._operations.run(create, abandoned="cancel")
        return pb.CreateContainerResponse()

    async def StartContainer(self, request: pb.StartContainerRequest, context: _Context) -> pb.StartContainerResponse:
        start = container_start(self._node, container_id=request.container_id, start_id=request.start_id)
        entry = await self._operations.run(start, abandoned="cancel")
        return pb.StartContainerResponse(entry=self._told(entry))

    async def SignalContainer(
        self, request: pb.SignalContainerRequest, context: _Context
    ) -> pb.SignalContainerResponse:
        await container_signal(self._node, container_id=request.container_id, signal=request.signal)
        return pb.SignalContainerResponse()

    async def StopContainer(self, request: pb.StopContainerRequest, context: _Context) -> pb.StopContainerResponse:
        stop = container_stop(
            self._node, container_id=request.container_id, signal=request.signal, timeout=request.timeout
        )
        # A stop goes on without its caller, as Docker's does, but not for hours: each of them is an operation.
        short = FOREVER < request.timeout <= _LONGEST_ABANDONED_STOP
        entry = await self._operations.run(stop, abandoned="finish" if short else "cancel")
        return pb.StopContainerResponse(entry=self._told(entry) if entry else None)

    async def RemoveContainer(
        self, request: pb.RemoveContainerRequest, context: _Context
    ) -> pb.RemoveContainerResponse:
        await self._operations.run(container_remove(self._node, request.container_id), abandoned="finish")
        return pb.RemoveContainerResponse()

    async def PauseContainer(self, request: pb.PauseContainerRequest, context: _Context) -> pb.PauseContainerResponse:
        entry = await self._operations.run(container_pause(self._node, request.container_id), abandoned="finish")
        return pb.PauseContainerResponse(entry=self._told(entry) if entry else None)

    async def UnpauseContainer(
        self, request: pb.UnpauseContainerRequest, context: _Context
    ) -> pb.UnpauseContainerResponse:
        entry = await self._operations.run(container_unpause(self._node, request.container_id), abandoned="finish")
        return pb.UnpauseContainerResponse(entry=self._told(entry) if entry else None)

    async def UpdateContainer(
        self, request: pb.UpdateContainerRequest, context: _Context
    ) -> pb.UpdateContainerResponse:
        update = container_update(
            self._node,
            container_id=request.container_id,
            resources=resources_from_proto(request.resources),
            restart_policy=restart_policy_from_proto(request.restart_policy),
            published_ports=published_ports_from_proto(request.published_ports),
        )
        entry = await self._operations.run(update, abandoned="finish")
        return pb.UpdateContainerResponse(entry=self._told(entry))

    async def ConnectNetwork(self, request: pb.ConnectNetworkRequest, context: _Context) -> pb.ConnectNetworkResponse:
        endpoint = endpoint_from_proto(request.endpoint)
        connect = network_connect(self._node, container_id=request.container_id, endpoint=endpoint)
        entry = await self._operations.run(connect, abandoned="finish")
        return pb.ConnectNetworkResponse(entry=self._told(entry) if entry is not None else None)

    async def DisconnectNetwork(
        self, request: pb.DisconnectNetworkRequest, context: _Context
    ) -> pb.DisconnectNetworkResponse:
        disconnect = network_disconnect(self._node, container_id=request.container_id, network_id=request.network_id)
        entry = await self._operations.run(disconnect, abandoned="finish")
        return pb.DisconnectNetworkResponse(entry=self._told(entry) if entry is not None else None)

    async def ReadStats(self, request: pb.ReadStatsRequest, context: _Context) -> pb.ReadStatsResponse:
        found = await container_stats(self._node, request.container_ids)
        return pb.ReadStatsResponse(containers=[stats_to_proto(stats) for stats in found])

    async def ListProcesses(self, request: pb.ListProcessesRequest, context: _Context) -> pb.ListProcessesResponse:
        found = await container_processes(self._node, request.container_id)
        return pb.ListProcessesResponse(processes=[process_to_proto(process) for process in found])

    async def ListContainers(self, request: pb.ListContainersRequest, context: _Context) -> pb.ListContainersResponse:
        return snapshot_to_proto(container_list(self._node))

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: _Context) -> AsyncIterator[pb.ReadLogsResponse]:
        query = log_query_from_proto(request)
        async for records in container_logs(self._node, container_id=request.container_id, query=query):
            yield log_records_to_proto(records)

    async def FollowJournal(
        self, request: pb.FollowJournalRequest, context: _Context
    ) -> AsyncIterator[pb.FollowJournalResponse]:
        journal = self._node.journal
        journal.accept(journal_id=request.journal_id, after=request.after_sequence)
        yield pb.FollowJournalResponse(journal_id=journal.id)
        async for entry in journal.follow(request.after_sequence):
            yield pb.FollowJournalResponse(journal_id=journal.id, entry=self._told(entry))

    async def AttachContainer(
        self, request_iterator: AsyncIterator[pb.AttachContainerRequest], context: _Context
    ) -> AsyncIterator[pb.AttachContainerResponse]:
        target = await attach_target(request_iterator)
        outputs = container_attach(
            self._node,
            container_id=target.container_id,
            stdin=target.stdin,
            stdout=target.stdout,
            stderr=target.stderr,
            inputs=attach_inputs(request_iterator),
        )
        async with aclosing(outputs):
            async for output in outputs:
                yield attach_answer(output)
        # Said and not left to the status, which gRPC loses when a client is still sending.
        yield pb.AttachContainerResponse(ended=True)

    async def ResizeTerminal(self, request: pb.ResizeTerminalRequest, context: _Context) -> pb.ResizeTerminalResponse:
        await container_resize(self._node, container_id=request.container_id, size=size_from_proto(request.size))
        return pb.ResizeTerminalResponse()

    async def Exec(
        self, request_iterator: AsyncIterator[pb.ExecRequest], context: _Context
    ) -> AsyncIterator[pb.ExecResponse]:
        spec = await exec_spec(request_iterator)
        async with aclosing(exec_run(self._node, spec, exec_inputs(request_iterator))) as answers:
            async for answer in answers:
                yield exec_answer(answer, journal_id=self._node.journal.id)

    async def ResizeExecTerminal(
        self, request: pb.ResizeExecTerminalRequest, context: _Context
    ) -> pb.ResizeExecTerminalResponse:
        await exec_resize(self._node, exec_id=request.exec_id, size=size_from_proto(request.size))
        return pb.ResizeExecTerminalResponse()
