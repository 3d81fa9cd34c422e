"""`slipway.executor.v1.NetworkStoreService`."""

from __future__ import annotations

from typing import Any

import grpc
from slipway.executor.v1 import network_store_service_pb2 as pb
from slipway.executor.v1 import network_store_service_pb2_grpc

from executor_service.conversion.networks import (
    containers_from_proto,
    network_to_proto,
    spec_from_proto,
    underlay_from_proto,
)
from executor_service.node import Node
from executor_service.operations.network_overlay import names_elsewhere_set, overlay_peers_set
from executor_service.operations.network_store import network_create, network_remove
from executor_service.tasks import Operations

_Context = grpc.aio.ServicerContext[Any, Any]


class NetworkStoreServicer(network_store_service_pb2_grpc.NetworkStoreServiceServicer):
    def __init__(self, node: Node, operations: Operations) -> None:
        self._node = node
        self._operations = operations

    async def CreateNetwork(self, request: pb.CreateNetworkRequest, context: _Context) -> pb.CreateNetworkResponse:
        create = network_create(self._node, spec_from_proto(request.spec))
        network = await self._operations.run(create, abandoned="finish")
        return pb.CreateNetworkResponse(network=network_to_proto(network))

    async def RemoveNetwork(self, request: pb.RemoveNetworkRequest, context: _Context) -> pb.RemoveNetworkResponse:
        await self._operations.run(network_remove(self._node, request.id), abandoned="finish")
        return pb.RemoveNetworkResponse()

    async def SetOverlayPeers(
        self, request: pb.SetOverlayPeersRequest, context: _Context
    ) -> pb.SetOverlayPeersResponse:
        change = overlay_peers_set(self._node, request.network_id, underlay_from_proto(request.underlay))
        await self._operations.run(change, abandoned="finish")
        return pb.SetOverlayPeersResponse()

    async def SetNamesElsewhere(
        self, request: pb.SetNamesElsewhereRequest, context: _Context
    ) -> pb.SetNamesElsewhereResponse:
        change = names_elsewhere_set(
            self._node,
            request.network_id,
            containers_from_proto(request.containers),
            version=request.version,
            renumbered=request.renumbered,
        )
        return pb.SetNamesElsewhereResponse(version=await self._operations.run(change, abandoned="finish"))

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: _Context) -> pb.ListNetworksResponse:
        networks = sorted(self._node.seams.networks.list(), key=lambda network: network.id)
        return pb.ListNetworksResponse(networks=[network_to_proto(network) for network in networks])
