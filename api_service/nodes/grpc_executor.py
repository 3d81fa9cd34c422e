"""The executor of a node over gRPC.

The connection is made when it is first needed and again whenever it broke. Every error comes back as one of
`common.errors`; a node that does not answer says so by name, with its address and what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar, cast

import grpc
from slipway.executor.v1 import file_service_pb2 as file_pb2
from slipway.executor.v1 import file_service_pb2_grpc as file_grpc
from slipway.executor.v1 import image_store_service_pb2 as image_pb2
from slipway.executor.v1 import image_store_service_pb2_grpc as image_grpc
from slipway.executor.v1 import network_store_service_pb2 as network_pb2
from slipway.executor.v1 import network_store_service_pb2_grpc as network_grpc
from slipway.executor.v1 import node_service_pb2 as node_pb2
from slipway.executor.v1 import node_service_pb2_grpc as node_grpc
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb2
from slipway.executor.v1 import runtime_service_pb2_grpc as runtime_grpc
from slipway.executor.v1 import volume_store_service_pb2 as volume_pb2
from slipway.executor.v1 import volume_store_service_pb2_grpc as volume_grpc

from api_service.conversion import executor as conversion
from api_service.conversion import files as file_conversion
from api_service.conversion import node_images as image_conversion
from api_service.conversion import node_networks as networks
from api_service.conversion import node_streams as streams
from api_service.conversion.container_spec import (
    endpoint_to_proto,
    published_ports_to_proto,
    resources_to_proto,
    restart_policy_to_proto,
    spec_to_proto,
)
from api_service.conversion.node_stats import process_from_proto, stats_from_proto
from api_service.conversion.times import duration
from api_service.nodes.addressed_channel import AddressedChannel
from api_service.nodes.container_spec import ContainerSpec, EndpointSpec, PublishedPort
from api_service.nodes.deadline import Deadline
from api_service.nodes.executor import (
    AttachTarget,
    DiskUsage,
    ExecAnswer,
    ExecSpec,
    ExecutorClient,
    JournalAnswer,
    JournalEntry,
    LogLine,
    LogQuery,
    NodeFacts,
    NodeSnapshot,
    PulledImage,
    StoredImage,
    StoredVolume,
    StreamInput,
    StreamOutput,
)
from api_service.nodes.files import ArchiveTarget, FileChange, PathStat
from api_service.nodes.images import (
    OF_REGISTRIES,
    CommitSpec,
    ImportSpec,
    LayerProgress,
    Platform,
    PullSpec,
    PushedImage,
    PushSpec,
    SavedImage,
)
from api_service.nodes.network import ContainerElsewhere, StoredNetwork, Underlay
from api_service.nodes.node_channel import open_channel
from api_service.nodes.protocol import ProtocolRange, require_common_protocol
from api_service.nodes.stats import ContainerStats, Process
from api_service.records.config import ConsoleSize, RestartPolicy
from api_service.records.resources import Resources
from common.addressee import ANOTHER_EXECUTOR
from common.callers import REFUSED_IDENTITIES
from common.errors import SlipwayError, Unavailable
from common.rpc_status import error_from
from common.tls import TlsSource

T = TypeVar("T")
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

_RETRY_AFTER = 1.0  # seconds
_LEASE_OVER = "LEASE_OVER"  # the executor's reason: what it is asked for may not run there just now
_CONTACT_TIME = 5.0  # seconds
_GET_NODE = "/slipway.executor.v1.NodeService/GetNode"
_MAX_MESSAGE = 64 * 1024 * 1024  # bytes; the list of a node's images, with their configurations, is the largest
_OPTIONS = (
    # The defaults back off to two minutes, in which an executor that is back would go on being called unavailable.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
    # A node that vanished without a word must not leave the journal's stream open for ever, nor whoever calls it
    # waiting for much longer than ten seconds. Executors take a ping every five.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 6_000),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    # Several clients in one process, each with a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
)


class GrpcExecutor:
    """`address`: `unix:///run/slipway/executor.sock`, or `host:port`, which needs `tls`. Use as an async context
    manager."""

    def __init__(self, *, node: str, address: str, tls: TlsSource | None = None) -> None:
        self._node = node
        self._address = address
        self._tls = tls
        self._met: tuple[str, ProtocolRange] | None = None  # its version and protocol, when it was last asked

    async def __aenter__(self) -> Self:
        self._channel = open_channel(node=self._node, address=self._address, tls=self._tls, options=_OPTIONS)
        self._addressed = AddressedChannel(self._channel, self._admit)
        addressed = cast("grpc.aio.Channel", self._addressed)
        self._runtime = runtime_grpc.RuntimeServiceStub(addressed)
        self._images = image_grpc.ImageStoreServiceStub(addressed)
        self._files = file_grpc.FileServiceStub(addressed)
        self._networks = network_grpc.NetworkStoreServiceStub(addressed)
        self._volumes = volume_grpc.VolumeStoreServiceStub(addressed)
        self._nodes = node_grpc.NodeServiceStub(addressed)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    def meant_for(self, executor_id: str) -> None:
        self._addressed.executor_id = executor_id

    async def renew_lease(self, after: str, *, ttl: float, deadline: Deadline) -> str:
        request = node_pb2.RenewLeaseRequest(after=after, ttl=duration(int(ttl * 1e9)))
        return (await self._answer(self._nodes.RenewLease(request, timeout=deadline.remaining))).word

    async def create(self, spec: ContainerSpec, *, deadline: Deadline) -> None:
        request = runtime_pb2.CreateContainerRequest(spec=spec_to_proto(spec))
        await self._answer(self._runtime.CreateContainer(request, timeout=deadline.remaining))

    async def start(self, container_id: str, *, start_id: str, deadline: Deadline) -> JournalEntry:
        request = runtime_pb2.StartContainerRequest(container_id=container_id, start_id=start_id)
        answer = await self._answer(self._runtime.StartContainer(request, timeout=deadline.remaining))
        return conversion.entry_from_proto(answer.entry)

    async def signal(self, container_id: str, *, signal: int, deadline: Deadline) -> None:
        request = runtime_pb2.SignalContainerRequest(container_id=container_id, signal=signal)
        await self._answer(self._runtime.SignalContainer(request, timeout=deadline.remaining))

    async def stop(self, container_id: str, *, signal: int, timeout: int, deadline: Deadline) -> JournalEntry | None:
        request = runtime_pb2.StopContainerRequest(container_id=container_id, signal=signal, timeout=timeout)
        answer = await self._answer(self._runtime.StopContainer(request, timeout=deadline.remaining))
        return conversion.entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def pause(self, container_id: str, *, deadline: Deadline) -> JournalEntry | None:
        request = runtime_pb2.PauseContainerRequest(container_id=container_id)
        answer = await self._answer(self._runtime.PauseContainer(request, timeout=deadline.remaining))
        return conversion.entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def unpause(self, container_id: str, *, deadline: Deadline) -> JournalEntry | None:
        request = runtime_pb2.UnpauseContainerRequest(container_id=container_id)
        answer = await self._answer(self._runtime.UnpauseContainer(request, timeout=deadline.remaining))
        return conversion.entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def update(
        self,
        container_id: str,
        *,
        resources: Resources,
        restart_policy: RestartPolicy,
        published_ports: Sequence[PublishedPort],
        deadline: Deadline,
    ) -> JournalEntry:
        request = runtime_pb2.UpdateContainerRequest(
            container_id=container_id,
            resources=resources_to_proto(resources),
            restart_policy=restart_policy_to_proto(restart_policy),
            published_ports=published_ports_to_proto(published_ports),
        )
        answer = await self._answer(self._runtime.UpdateContainer(request, timeout=deadline.remaining))
        return conversion.entry_from_proto(answer.entry)

    async def read_stats(self, container_ids: Sequence[str], *, deadline: Deadline) -> Sequence[ContainerStats]:
        request = runtime_pb2.ReadStatsRequest(container_ids=container_ids)
        answer = await self._answer(self._runtime.ReadStats(request, timeout=deadline.remaining))
        return [stats_from_proto(stats) for stats in answer.containers]

    async def list_processes(self, container_id: str, *, deadline: Deadline) -> Sequence[Process]:
        request = runtime_pb2.ListProcessesRequest(container_id=container_id)
        answer = await self._answer(self._runtime.ListProcesses(request, timeout=deadline.remaining))
        return [process_from_proto(process) for process in answer.processes]

    async def remove(self, container_id: str, *, deadline: Deadline) -> None:
        request = runtime_pb2.RemoveContainerRequest(container_id=container_id)
        await self._answer(self._runtime.RemoveContainer(request, timeout=deadline.remaining))

    async def snapshot(self, *, deadline: Deadline) -> NodeSnapshot:
        request = runtime_pb2.ListContainersRequest()
        answer = await self._answer(self._runtime.ListContainers(request, timeout=deadline.remaining))
        return conversion.snapshot_from_proto(answer)

    async def exec(self, spec: ExecSpec, inputs: AsyncIterator[StreamInput]) -> AsyncGenerator[ExecAnswer]:
        begun = asyncio.Event()
        call = self._runtime.Exec(streams.exec_requests(spec, inputs, begun))
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(begun.set)
            stack.callback(call.cancel)
            async for message in call:
                begun.set()
                yield streams.exec_answer_from_proto(message)

    async def attach(
        self, target: AttachTarget, inputs: AsyncIterator[StreamInput]
    ) -> AsyncGenerator[StreamOutput | None]:
        begun = asyncio.Event()
        call = self._runtime.AttachContainer(streams.attach_requests(target, inputs, begun))
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(begun.set)
            stack.callback(call.cancel)
            async for message in call:
                begun.set()
                if message.ended:
                    return
                yield streams.attach_answer_from_proto(message)

    async def resize_terminal(self, container_id: str, size: ConsoleSize, *, deadline: Deadline) -> None:
        request = runtime_pb2.ResizeTerminalRequest(container_id=container_id)
        streams.set_size(request, size)
        await self._answer(self._runtime.ResizeTerminal(request, timeout=deadline.remaining))

    async def resize_exec(self, exec_id: str, size: ConsoleSize, *, deadline: Deadline) -> None:
        request = runtime_pb2.ResizeExecTerminalRequest(exec_id=exec_id)
        streams.set_size(request, size)
        await self._answer(self._runtime.ResizeExecTerminal(request, timeout=deadline.remaining))

    async def read_logs(self, query: LogQuery) -> AsyncGenerator[Sequence[LogLine]]:
        call = self._runtime.ReadLogs(conversion.log_query_to_proto(query))
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            async for message in call:
                yield [conversion.log_line_from_proto(line) for line in message.lines]

    async def follow_journal(self, *, journal_id: str, after: int) -> AsyncGenerator[JournalAnswer]:
        # The first call of each contact: what an executor of another version says is not to be understood by chance.
        await self.facts(deadline=Deadline.after(_CONTACT_TIME))
        call = self._runtime.FollowJournal(
            runtime_pb2.FollowJournalRequest(journal_id=journal_id, after_sequence=after)
        )
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            async for message in call:
                yield conversion.answer_from_proto(message)

    async def load_image(
        self, platform: Platform, chunks: AsyncIterator[bytes], *, deadline: Deadline
    ) -> Sequence[StoredImage]:
        async def requests() -> AsyncIterator[image_pb2.LoadImageRequest]:
            yield image_pb2.LoadImageRequest(platform=image_conversion.platform_to_proto(platform))
            async for chunk in chunks:
                yield image_pb2.LoadImageRequest(chunk=chunk)

        answer = await self._upload(self._images.LoadImage(timeout=deadline.remaining), requests())
        return [conversion.stored_image_from_proto(image) for image in answer.images]

    async def import_image(self, spec: ImportSpec, chunks: AsyncIterator[bytes], *, deadline: Deadline) -> StoredImage:
        async def requests() -> AsyncIterator[image_pb2.ImportImageRequest]:
            yield image_conversion.import_to_proto(spec)
            async for chunk in chunks:
                yield image_pb2.ImportImageRequest(chunk=chunk)

        answer = await self._upload(self._images.ImportImage(timeout=deadline.remaining), requests())
        return conversion.stored_image_from_proto(answer.image)

    async def pull_image(self, spec: PullSpec, *, deadline: Deadline) -> AsyncGenerator[LayerProgress | PulledImage]:
        call = self._images.PullImage(image_conversion.pull_to_proto(spec), timeout=deadline.remaining)
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            async for message in call:
                yield image_conversion.pull_answer_from_proto(message)

    async def save_images(self, images: Sequence[SavedImage], *, deadline: Deadline) -> AsyncGenerator[bytes]:
        request = image_pb2.SaveImagesRequest(images=map(image_conversion.saved_image_to_proto, images))
        call = self._images.SaveImages(request, timeout=deadline.remaining)
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            async for message in call:
                yield message.chunk

    async def get_image(self, image_id: str, *, deadline: Deadline) -> StoredImage:
        request = image_pb2.GetImageRequest(image_id=image_id)
        answer = await self._answer(self._images.GetImage(request, timeout=deadline.remaining))
        return conversion.stored_image_from_proto(answer.image)

    async def commit_container(self, spec: CommitSpec, *, deadline: Deadline) -> StoredImage:
        request = image_conversion.commit_to_proto(spec)
        answer = await self._answer(self._images.CommitContainer(request, timeout=deadline.remaining))
        return conversion.stored_image_from_proto(answer.image)

    async def push_image(self, spec: PushSpec, *, deadline: Deadline) -> AsyncGenerator[LayerProgress | PushedImage]:
        call = self._images.PushImage(image_conversion.push_to_proto(spec), timeout=deadline.remaining)
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            async for message in call:
                yield image_conversion.push_answer_from_proto(message)

    async def list_images(self, *, deadline: Deadline) -> Sequence[StoredImage]:
        answer = await self._answer(self._images.ListImages(image_pb2.ListImagesRequest(), timeout=deadline.remaining))
        return [conversion.stored_image_from_proto(image) for image in answer.images]

    async def remove_image(self, image_id: str, *, deadline: Deadline) -> None:
        request = image_pb2.RemoveImageRequest(image_id=image_id)
        await self._answer(self._images.RemoveImage(request, timeout=deadline.remaining))

    async def create_volume(self, name: str, options: Mapping[str, str], *, deadline: Deadline) -> StoredVolume:
        request = volume_pb2.CreateVolumeRequest(name=name, options=dict(options))
        answer = await self._answer(self._volumes.CreateVolume(request, timeout=deadline.remaining))
        return conversion.stored_volume_from_proto(answer.volume)

    async def remove_volume(self, name: str, *, deadline: Deadline) -> int:
        request = volume_pb2.RemoveVolumeRequest(name=name)
        return (await self._answer(self._volumes.RemoveVolume(request, timeout=deadline.remaining))).size

    async def list_volumes(self, *, size: bool, deadline: Deadline) -> Sequence[StoredVolume]:
        request = volume_pb2.ListVolumesRequest(size=size)
        answer = await self._answer(self._volumes.ListVolumes(request, timeout=deadline.remaining))
        return [conversion.stored_volume_from_proto(volume) for volume in answer.volumes]

    async def create_network(self, network: StoredNetwork, *, deadline: Deadline) -> StoredNetwork:
        request = network_pb2.CreateNetworkRequest(spec=networks.network_to_proto(network))
        answer = await self._answer(self._networks.CreateNetwork(request, timeout=deadline.remaining))
        return networks.network_from_proto(answer.network)

    async def remove_network(self, network_id: str, *, deadline: Deadline) -> None:
        request = network_pb2.RemoveNetworkRequest(id=network_id)
        await self._answer(self._networks.RemoveNetwork(request, timeout=deadline.remaining))

    async def list_networks(self, *, deadline: Deadline) -> Sequence[StoredNetwork]:
        request = network_pb2.ListNetworksRequest()
        answer = await self._answer(self._networks.ListNetworks(request, timeout=deadline.remaining))
        return [networks.network_from_proto(network) for network in answer.networks]

    async def set_overlay_peers(self, network_id: str, underlay: Underlay, *, deadline: Deadline) -> None:
        request = network_pb2.SetOverlayPeersRequest(
            network_id=network_id, underlay=networks.underlay_to_proto(underlay)
        )
        await self._answer(self._networks.SetOverlayPeers(request, timeout=deadline.remaining))

    async def set_names_elsewhere(
        self,
        network_id: str,
        containers: Sequence[ContainerElsewhere],
        *,
        version: int,
        renumbered: bool,
        deadline: Deadline,
    ) -> int:
        request = network_pb2.SetNamesElsewhereRequest(
            network_id=network_id,
            containers=[networks.container_elsewhere_to_proto(one) for one in containers],
            version=version,
            renumbered=renumbered,
        )
        answer = await self._answer(self._networks.SetNamesElsewhere(request, timeout=deadline.remaining))
        return answer.version

    async def connect_network(
        self, container_id: str, endpoint: EndpointSpec, *, deadline: Deadline
    ) -> JournalEntry | None:
        request = runtime_pb2.ConnectNetworkRequest(container_id=container_id, endpoint=endpoint_to_proto(endpoint))
        answer = await self._answer(self._runtime.ConnectNetwork(request, timeout=deadline.remaining))
        return conversion.entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def disconnect_network(
        self, container_id: str, network_id: str, *, deadline: Deadline
    ) -> JournalEntry | None:
        request = runtime_pb2.DisconnectNetworkRequest(container_id=container_id, network_id=network_id)
        answer = await self._answer(self._runtime.DisconnectNetwork(request, timeout=deadline.remaining))
        return conversion.entry_from_proto(answer.entry) if answer.HasField("entry") else None

    async def facts(self, *, deadline: Deadline) -> NodeFacts:
        answer = await self._answer(self._nodes.GetNode(node_pb2.GetNodeRequest(), timeout=deadline.remaining))
        theirs = ProtocolRange(oldest=answer.oldest_protocol_version, latest=answer.protocol_version)
        self._met = answer.version, theirs
        require_common_protocol(self._node, version=answer.version, theirs=theirs)
        return conversion.facts_from_proto(answer)

    async def disk_usage(self, *, deadline: Deadline, containers: Sequence[str] = ()) -> DiskUsage:
        request = node_pb2.GetDiskUsageRequest(container_ids=containers)
        answer = await self._answer(self._nodes.GetDiskUsage(request, timeout=deadline.remaining))
        return conversion.disk_usage_from_proto(answer)

    async def list_changes(self, container_id: str, *, deadline: Deadline) -> Sequence[FileChange]:
        request = file_pb2.ListChangesRequest(container_id=container_id)
        answer = await self._answer(self._files.ListChanges(request, timeout=deadline.remaining))
        return [file_conversion.change_from_proto(change) for change in answer.changes]

    async def put_archive(self, target: ArchiveTarget, chunks: AsyncIterator[bytes], *, deadline: Deadline) -> None:
        async def requests() -> AsyncIterator[file_pb2.PutArchiveRequest]:
            yield file_pb2.PutArchiveRequest(target=file_conversion.target_to_proto(target))
            async for chunk in chunks:
                yield file_pb2.PutArchiveRequest(chunk=chunk)

        await self._upload(self._files.PutArchive(timeout=deadline.remaining), requests())

    async def get_archive(
        self, container_id: str, path: str, *, deadline: Deadline
    ) -> AsyncGenerator[PathStat | bytes]:
        request = file_pb2.GetArchiveRequest(container_id=container_id, path=path)
        call = self._files.GetArchive(request, timeout=deadline.remaining)
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            async for message in call:
                if message.HasField("stat"):
                    yield file_conversion.stat_from_proto(message.stat)
                else:
                    yield message.chunk

    async def export_root(self, container_id: str, *, deadline: Deadline) -> AsyncGenerator[bytes]:
        call = self._files.ExportRoot(file_pb2.ExportRootRequest(container_id=container_id), timeout=deadline.remaining)
        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            async for message in call:
                yield message.chunk

    def _admit(self, method: str) -> None:
        """An executor of another version is asked for nothing but what it is by now."""
        if self._met is not None and method != _GET_NODE:
            version, theirs = self._met
            require_common_protocol(self._node, version=version, theirs=theirs)

    async def _answer(self, call: Awaitable[T]) -> T:
        with self._errors():
            return await call

    async def _upload(
        self, call: grpc.aio.StreamUnaryCall[RequestT, ResponseT], requests: AsyncIterator[RequestT]
    ) -> ResponseT:
        """Each write waits until the node has room, so the caller is read no faster than the node takes it in."""
        sending = asyncio.create_task(_send(call, requests))

        def end_sending(_: object) -> None:
            sending.cancel()

        with self._errors(), contextlib.ExitStack() as stack:
            stack.callback(call.cancel)
            stack.callback(sending.cancel)
            # A node may answer before the end. grpc.aio lets a write that fails then overwrite the answer's status with
            # one of its own, so none may be under way any more when the status comes.
            call.add_done_callback(end_sending)
            await asyncio.wait({sending})
            if not sending.cancelled():
                sending.result()
            return await call

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # It was the call that was cancelled, with its channel: the peer's authority is no longer trusted.
            raise self._unavailable(Unavailable("its connection was given up")) from error
        except grpc.aio.AioRpcError as error:
            known = error_from(error)
            if known.reason in REFUSED_IDENTITIES:
                raise self._refused(known) from error
            if known.reason == ANOTHER_EXECUTOR:
                raise self._another(known) from error
            if type(known) is not Unavailable or known.reason in (*OF_REGISTRIES, _LEASE_OVER):
                raise known from error
            raise self._unavailable(known) from error

    def _refused(self, error: SlipwayError) -> Unavailable:
        """It is this service that the node refuses, not the one who calls it."""
        return Unavailable(
            f"node {self._node!r}: its executor at {self._address} refuses this service: {error.message}",
            retry_after=_RETRY_AFTER,
            reason="NODE_REFUSES",
            metadata={"node": self._node, "address": self._address, "because": error.reason},
        )

    def _another(self, error: SlipwayError) -> Unavailable:
        return Unavailable(
            f"node {self._node!r}: another executor than the node's answers at {self._address} ({error.message}); "
            "start the node's own there, or remove the node and add it anew",
            reason=ANOTHER_EXECUTOR,
            metadata={"node": self._node, "address": self._address},
        )

    def _unavailable(self, error: Unavailable) -> Unavailable:
        return Unavailable(
            f"node {self._node!r}: its executor at {self._address} does not answer ({error.message}); start it "
            "(python -m executor_service, as root) or look at its log, then repeat the request",
            retry_after=error.retry_after or _RETRY_AFTER,
            reason="NODE_UNAVAILABLE",
            metadata={"node": self._node, "address": self._address},
        )


async def _send(call: grpc.aio.StreamUnaryCall[RequestT, ResponseT], requests: AsyncIterator[RequestT]) -> None:
    """To the end, or until the node takes no more; its answer says why."""
    async for request in requests:
        try:
            await call.write(request)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            return
    with contextlib.suppress(asyncio.InvalidStateError):
        await call.done_writing()


_: type[ExecutorClient] = GrpcExecutor
