"""NetworkService: from the message to the operation and back."""

from __future__ import annotations

from slipway.v1 import network_service_pb2 as pb2
from slipway.v1 import network_service_pb2_grpc as pb2_grpc

from api_service.conversion import network as conversion
from api_service.conversion.networking import endpoint_from_proto
from api_service.operations.engine import Engine
from api_service.operations.network_connect import connect_container, disconnect_container
from api_service.operations.network_create import create_network
from api_service.operations.network_list import inspect_network, list_networks
from api_service.operations.network_remove import prune_networks, remove_network
from api_service.servicers.call import Context, deadline_of


class NetworkServicer(pb2_grpc.NetworkServiceServicer):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def CreateNetwork(self, request: pb2.CreateNetworkRequest, context: Context) -> pb2.CreateNetworkResponse:
        asked = conversion.network_request_from_proto(request)
        created = await create_network(self._engine, asked, deadline=deadline_of(context))
        return pb2.CreateNetworkResponse(id=created.id, warnings=created.warnings)

    async def InspectNetwork(self, request: pb2.InspectNetworkRequest, context: Context) -> pb2.InspectNetworkResponse:
        shown = await inspect_network(self._engine, request.network, deadline=deadline_of(context))
        return pb2.InspectNetworkResponse(network=conversion.shown_network_to_proto(shown))

    async def ListNetworks(self, request: pb2.ListNetworksRequest, context: Context) -> pb2.ListNetworksResponse:
        wanted = conversion.network_filter_from_proto(request)
        networks = await list_networks(self._engine, wanted, deadline=deadline_of(context))
        return pb2.ListNetworksResponse(networks=[conversion.network_to_proto(network) for network in networks])

    async def RemoveNetwork(self, request: pb2.RemoveNetworkRequest, context: Context) -> pb2.RemoveNetworkResponse:
        await remove_network(self._engine, request.network, deadline=deadline_of(context))
        return pb2.RemoveNetworkResponse()

    async def ConnectContainer(
        self, request: pb2.ConnectContainerRequest, context: Context
    ) -> pb2.ConnectContainerResponse:
        settings, deadline = endpoint_from_proto(request.endpoint), deadline_of(context)
        await connect_container(self._engine, request.network, request.container, settings, deadline=deadline)
        return pb2.ConnectContainerResponse()

    async def DisconnectContainer(
        self, request: pb2.DisconnectContainerRequest, context: Context
    ) -> pb2.DisconnectContainerResponse:
        deadline = deadline_of(context)
        await disconnect_container(self._engine, request.network, request.container, deadline=deadline)
        return pb2.DisconnectContainerResponse()

    async def PruneNetworks(self, request: pb2.PruneNetworksRequest, context: Context) -> pb2.PruneNetworksResponse:
        until = request.until.ToNanoseconds() if request.HasField("until") else None
        pruned = await prune_networks(
            self._engine, labels=tuple(request.label), until=until, deadline=deadline_of(context)
        )
        return pb2.PruneNetworksResponse(networks=pruned)
