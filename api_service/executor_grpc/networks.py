"""The networks of a node over gRPC."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from slipway.executor.v1 import network_store_service_pb2 as pb2
from slipway.executor.v1.network_store_service_pb2_grpc import NetworkStoreServiceStub

from api_service.conversion.executor import networks as conversion
from api_service.deadline import Deadline
from api_service.executor_client.networks import ContainerElsewhere, NodeNetworks, StoredNetwork, Underlay
from api_service.executor_grpc.calls import NodeCalls


class GrpcNetworks:
    def __init__(self, channel: grpc.aio.Channel, calls: NodeCalls) -> None:
        self._networks = NetworkStoreServiceStub(channel)
        self._calls = calls

    async def create(self, network: StoredNetwork, *, deadline: Deadline) -> StoredNetwork:
        request = pb2.CreateNetworkRequest(spec=conversion.network_to_proto(network))
        answer = await self._calls.answer(self._networks.CreateNetwork(request, timeout=deadline.remaining))
        return conversion.network_from_proto(answer.network)

    async def remove(self, network_id: str, *, deadline: Deadline) -> None:
        request = pb2.RemoveNetworkRequest(id=network_id)
        await self._calls.answer(self._networks.RemoveNetwork(request, timeout=deadline.remaining))

    async def list(self, *, deadline: Deadline) -> Sequence[StoredNetwork]:
        request = pb2.ListNetworksRequest()
        answer = await self._calls.answer(self._networks.ListNetworks(request, timeout=deadline.remaining))
        return [conversion.network_from_proto(network) for network in answer.networks]

    async def set_overlay_peers(self, network_id: str, underlay: Underlay, *, deadline: Deadline) -> None:
        told = conversion.underlay_to_proto(underlay)
        request = pb2.SetOverlayPeersRequest(network_id=network_id, underlay=told)
        await self._calls.answer(self._networks.SetOverlayPeers(request, timeout=deadline.remaining))

    async def set_names_elsewhere(
        self,
        network_id: str,
        containers: Sequence[ContainerElsewhere],
        *,
        version: int,
        renumbered: bool,
        deadline: Deadline,
    ) -> int:
        request = pb2.SetNamesElsewhereRequest(
            network_id=network_id,
            containers=[conversion.container_elsewhere_to_proto(one) for one in containers],
            version=version,
            renumbered=renumbered,
        )
        answer = await self._calls.answer(self._networks.SetNamesElsewhere(request, timeout=deadline.remaining))
        return answer.version


_: type[NodeNetworks] = GrpcNetworks
