"""ContainerService: from the message to the operation and back."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import aclosing

from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import container_service_pb2_grpc as pb2_grpc

from api_service.conversion import container as conversion
from api_service.conversion import files as file_conversion
from api_service.conversion import streams as stream_conversion
from api_service.conversion.console_size import size_from_proto
from api_service.conversion.stats import process_to_proto, samples_to_proto
from api_service.deadline import UPLOAD_DEADLINE
from api_service.operations.container_attach import attach_container
from api_service.operations.container_changes import list_changes
from api_service.operations.container_copy import copy_from_container, copy_to_container
from api_service.operations.container_create import create_container
from api_service.operations.container_export import export_container
from api_service.operations.container_inspect import inspect_container
from api_service.operations.container_kill import kill_container
from api_service.operations.container_list import list_containers
from api_service.operations.container_logs import stream_logs
from api_service.operations.container_pause import pause_container, unpause_container
from api_service.operations.container_processes import list_processes
from api_service.operations.container_prune import prune_containers
from api_service.operations.container_remove import remove_container
from api_service.operations.container_rename import rename_container
from api_service.operations.container_restart import restart_container
from api_service.operations.container_start import start_container
from api_service.operations.container_stats import stream_stats
from api_service.operations.container_stop import stop_container
from api_service.operations.container_update import update_container
from api_service.operations.container_wait import wait_container
from api_service.operations.engine import Engine
from api_service.operations.terminal_resize import resize_container
from api_service.servicers.call import Context, client_deadline, deadline_of, send_headers
from api_service.servicers.long_calls import LongCalls
from api_service.servicers.streams import chunks_after, first_message, first_with
from common.request_rules import RequestRules


class ContainerServicer(pb2_grpc.ContainerServiceServicer):
    """`rules` leaves the rules of a create to this servicer, which reports them with those of the operation."""

    def __init__(self, engine: Engine, rules: RequestRules, long_calls: LongCalls) -> None:
        self._engine = engine
        self._long_calls = long_calls
        self._rules = rules

    async def CreateContainer(
        self, request: pb2.CreateContainerRequest, context: Context
    ) -> pb2.CreateContainerResponse:
        asked = conversion.create_request_from_proto(request, self._rules.violations(request))
        created = await create_container(self._engine, asked, deadline=client_deadline(context))
        return pb2.CreateContainerResponse(id=created.id, warnings=created.warnings)

    async def StartContainer(self, request: pb2.StartContainerRequest, context: Context) -> pb2.StartContainerResponse:
        already = await start_container(self._engine, request.container, deadline=deadline_of(context))
        return pb2.StartContainerResponse(already_started=already)

    async def StopContainer(self, request: pb2.StopContainerRequest, context: Context) -> pb2.StopContainerResponse:
        already = await stop_container(
            self._engine,
            request.container,
            signal=request.signal,
            timeout=request.timeout if request.HasField("timeout") else None,
            deadline=client_deadline(context),
        )
        return pb2.StopContainerResponse(already_stopped=already)

    async def KillContainer(self, request: pb2.KillContainerRequest, context: Context) -> pb2.KillContainerResponse:
        await kill_container(self._engine, request.container, signal=request.signal, deadline=deadline_of(context))
        return pb2.KillContainerResponse()

    async def RestartContainer(
        self, request: pb2.RestartContainerRequest, context: Context
    ) -> pb2.RestartContainerResponse:
        await restart_container(
            self._engine,
            request.container,
            signal=request.signal,
            timeout=request.timeout if request.HasField("timeout") else None,
            deadline=client_deadline(context),
        )
        return pb2.RestartContainerResponse()

    async def RemoveContainer(
        self, request: pb2.RemoveContainerRequest, context: Context
    ) -> pb2.RemoveContainerResponse:
        await remove_container(
            self._engine,
            request.container,
            force=request.force,
            volumes=request.volumes,
            deadline=deadline_of(context),
        )
        return pb2.RemoveContainerResponse()

    async def InspectContainer(
        self, request: pb2.InspectContainerRequest, context: Context
    ) -> pb2.InspectContainerResponse:
        record, exec_ids = await inspect_container(self._engine, request.container)
        return pb2.InspectContainerResponse(container=conversion.container_to_proto(record, exec_ids))

    async def ListContainers(self, request: pb2.ListContainersRequest, context: Context) -> pb2.ListContainersResponse:
        page = await list_containers(
            self._engine,
            conversion.filter_from_proto(request.filters),
            all=request.all,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return conversion.page_to_proto(page, now=self._engine.clock())

    async def WaitContainer(self, request: pb2.WaitContainerRequest, context: Context) -> pb2.WaitContainerResponse:
        condition = conversion.condition_from_proto(request.condition)
        on_waiting = functools.partial(send_headers, context)
        with self._long_calls.waiting():
            waited = await wait_container(self._engine, request.container, condition, on_waiting=on_waiting)
        return conversion.waited_to_proto(waited)

    async def RenameContainer(
        self, request: pb2.RenameContainerRequest, context: Context
    ) -> pb2.RenameContainerResponse:
        await rename_container(self._engine, request.container, request.new_name, deadline=deadline_of(context))
        return pb2.RenameContainerResponse()

    async def PauseContainer(self, request: pb2.PauseContainerRequest, context: Context) -> pb2.PauseContainerResponse:
        await pause_container(self._engine, request.container, deadline=deadline_of(context))
        return pb2.PauseContainerResponse()

    async def UnpauseContainer(
        self, request: pb2.UnpauseContainerRequest, context: Context
    ) -> pb2.UnpauseContainerResponse:
        await unpause_container(self._engine, request.container, deadline=deadline_of(context))
        return pb2.UnpauseContainerResponse()

    async def UpdateContainer(
        self, request: pb2.UpdateContainerRequest, context: Context
    ) -> pb2.UpdateContainerResponse:
        asked = conversion.update_request_from_proto(request)
        warnings = await update_container(self._engine, request.container, asked, deadline=deadline_of(context))
        return pb2.UpdateContainerResponse(warnings=warnings)

    async def StreamStats(
        self, request: pb2.StreamStatsRequest, context: Context
    ) -> AsyncIterator[pb2.StreamStatsResponse]:
        async with self._long_calls.stream(stream_stats(self._engine, request.containers, once=request.once)) as rounds:
            async for samples in rounds:
                yield samples_to_proto(samples)

    async def ListProcesses(self, request: pb2.ListProcessesRequest, context: Context) -> pb2.ListProcessesResponse:
        found = await list_processes(self._engine, request.container, deadline=deadline_of(context))
        return pb2.ListProcessesResponse(processes=[process_to_proto(process) for process in found])

    async def StreamLogs(
        self, request: pb2.StreamLogsRequest, context: Context
    ) -> AsyncIterator[pb2.StreamLogsResponse]:
        query = conversion.log_query_from_proto(request)
        async with self._long_calls.stream(stream_logs(self._engine, request.container, query)) as batches:
            async for lines in batches:
                yield conversion.log_lines_to_proto(lines)

    async def ListChanges(self, request: pb2.ListChangesRequest, context: Context) -> pb2.ListChangesResponse:
        changes = await list_changes(self._engine, request.container, deadline=deadline_of(context))
        return pb2.ListChangesResponse(changes=[file_conversion.change_to_proto(change) for change in changes])

    async def CopyToContainer(
        self, requests: AsyncIterator[pb2.CopyToContainerRequest], context: Context
    ) -> pb2.CopyToContainerResponse:
        target = (await first_message(requests, "target")).target
        await copy_to_container(
            self._engine,
            target.container,
            file_conversion.target_from_proto(target),
            chunks_after(requests, "target"),
            deadline=deadline_of(context, default=UPLOAD_DEADLINE),
        )
        return pb2.CopyToContainerResponse()

    async def CopyFromContainer(
        self, request: pb2.CopyFromContainerRequest, context: Context
    ) -> AsyncIterator[pb2.CopyFromContainerResponse]:
        deadline = deadline_of(context, default=UPLOAD_DEADLINE)
        pieces = copy_from_container(self._engine, request.container, request.path, deadline=deadline)
        async with aclosing(pieces):
            async for piece in pieces:
                yield file_conversion.piece_to_proto(piece)

    async def ExportContainer(
        self, request: pb2.ExportContainerRequest, context: Context
    ) -> AsyncIterator[pb2.ExportContainerResponse]:
        deadline = deadline_of(context, default=UPLOAD_DEADLINE)
        async with aclosing(export_container(self._engine, request.container, deadline=deadline)) as chunks:
            async for chunk in chunks:
                yield pb2.ExportContainerResponse(chunk=chunk)

    async def PruneContainers(
        self, request: pb2.PruneContainersRequest, context: Context
    ) -> pb2.PruneContainersResponse:
        wanted = conversion.prune_filter_from_proto(request)
        pruned = await prune_containers(self._engine, wanted, deadline=deadline_of(context, default=UPLOAD_DEADLINE))
        return pb2.PruneContainersResponse(containers=pruned.containers, space_reclaimed=pruned.space_reclaimed)

    async def AttachContainer(
        self, request_iterator: AsyncIterator[pb2.AttachContainerRequest], context: Context
    ) -> AsyncIterator[pb2.AttachContainerResponse]:
        with self._long_calls.waiting():
            attach = stream_conversion.attach_from_proto((await first_with(request_iterator, "attach")).attach)
        attached = attach_container(self._engine, attach, stream_conversion.typed(request_iterator))
        async with self._long_calls.stream(attached) as answers:
            async for answer in answers:
                yield stream_conversion.attach_answer_to_proto(answer)

    async def ResizeContainerTty(
        self, request: pb2.ResizeContainerTtyRequest, context: Context
    ) -> pb2.ResizeContainerTtyResponse:
        size = size_from_proto(request.size)
        await resize_container(self._engine, request.container, size, deadline=deadline_of(context))
        return pb2.ResizeContainerTtyResponse()
