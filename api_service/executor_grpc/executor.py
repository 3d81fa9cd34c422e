"""The client of one executor. The connection is made when it is first needed and again whenever it broke."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self, cast

import grpc
from slipway.executor.v1 import node_service_pb2 as pb2
from slipway.executor.v1 import node_service_pb2_grpc as node_grpc
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb2
from slipway.executor.v1 import runtime_service_pb2_grpc as runtime_grpc

from api_service.conversion.executor.journal import answer_from_proto
from api_service.conversion.executor.node import disk_usage_from_proto, facts_from_proto
from api_service.conversion.executor.snapshot import snapshot_from_proto
from api_service.conversion.times import duration
from api_service.deadline import Deadline
from api_service.executor_client.client import ExecutorClient
from api_service.executor_client.journal import JournalAnswer
from api_service.executor_client.node import DiskUsage, NodeFacts
from api_service.executor_client.protocol import require_common_protocol
from api_service.executor_client.snapshot import NodeSnapshot
from api_service.executor_grpc.addressed_channel import AddressedChannel
from api_service.executor_grpc.calls import NodeCalls
from api_service.executor_grpc.channel import RenewedChannel, open_channel
from api_service.executor_grpc.containers import GrpcContainers
from api_service.executor_grpc.files import GrpcFiles
from api_service.executor_grpc.images import GrpcImages
from api_service.executor_grpc.networks import GrpcNetworks
from api_service.executor_grpc.volumes import GrpcVolumes
from common.protocol_version import ProtocolRange
from common.tls import TlsSource

_CONTACT_TIME = 5.0  # seconds
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

    containers: GrpcContainers
    files: GrpcFiles
    images: GrpcImages
    volumes: GrpcVolumes
    networks: GrpcNetworks

    def __init__(self, *, node: str, address: str, tls: TlsSource | None = None) -> None:
        self._node = node
        self._address = address
        self._tls = tls
        self._calls = NodeCalls(node=node, address=address)

    async def __aenter__(self) -> Self:
        self._channel = self._open()
        self._addressed = AddressedChannel(self._channel, self._address)
        addressed = cast("grpc.aio.Channel", self._addressed)
        self._nodes = node_grpc.NodeServiceStub(addressed)
        self._runtime = runtime_grpc.RuntimeServiceStub(addressed)
        self.containers = GrpcContainers(self._runtime, self._calls)
        self.files = GrpcFiles(addressed, self._calls)
        self.images = GrpcImages(addressed, self._calls)
        self.volumes = GrpcVolumes(addressed, self._calls)
        self.networks = GrpcNetworks(addressed, self._calls)
        return self

    def _open(self) -> grpc.aio.Channel:
        return open_channel(node=self._node, address=self._address, tls=self._tls, options=_OPTIONS)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._addressed.patience.close()
        await self._channel.close()

    def meant_for(self, executor_id: str) -> None:
        self._addressed.meant_for(executor_id)

    def expect(self, *, ready: bool) -> None:
        self._addressed.patience.expect(ready=ready)

    def connect_anew(self) -> None:
        if isinstance(self._channel, RenewedChannel):  # within one machine no connection is lost without a word
            self._channel.connect_anew()

    async def facts(self, *, deadline: Deadline) -> NodeFacts:
        answer = await self._calls.answer(self._nodes.GetNode(pb2.GetNodeRequest(), timeout=deadline.remaining))
        theirs = ProtocolRange(oldest=answer.oldest_protocol_version, latest=answer.protocol_version)
        require_common_protocol(self._node, version=answer.version, theirs=theirs)
        return facts_from_proto(answer)

    async def renew_lease(self, after: str, *, ttl: float, deadline: Deadline) -> str:
        request = pb2.RenewLeaseRequest(after=after, ttl=duration(int(ttl * 1e9)))
        return (await self._calls.answer(self._nodes.RenewLease(request, timeout=deadline.remaining))).word

    async def disk_usage(self, *, deadline: Deadline, containers: Sequence[str] = ()) -> DiskUsage:
        request = pb2.GetDiskUsageRequest(container_ids=containers)
        answer = await self._calls.answer(self._nodes.GetDiskUsage(request, timeout=deadline.remaining))
        return disk_usage_from_proto(answer)

    async def snapshot(self, *, deadline: Deadline) -> NodeSnapshot:
        request = runtime_pb2.ListContainersRequest()
        answer = await self._calls.answer(self._runtime.ListContainers(request, timeout=deadline.remaining))
        return snapshot_from_proto(answer)

    async def follow_journal(self, *, journal_id: str, after: int) -> AsyncGenerator[JournalAnswer]:
        # The first call of each contact: what an executor of another version says is not to be understood by chance.
        await self.facts(deadline=Deadline.after(_CONTACT_TIME))
        call = self._runtime.FollowJournal(
            runtime_pb2.FollowJournalRequest(journal_id=journal_id, after_sequence=after)
        )
        with self._calls.stream(call):
            async for message in call:
                yield answer_from_proto(message)


_: type[ExecutorClient] = GrpcExecutor
