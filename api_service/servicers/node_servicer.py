"""NodeService: from the message to the operation and back."""

from __future__ import annotations

from slipway.v1 import node_service_pb2 as pb2
from slipway.v1 import node_service_pb2_grpc as pb2_grpc

from api_service.conversion import node as conversion
from api_service.operations.engine import Engine
from api_service.operations.node_add import add_node
from api_service.operations.node_list import inspect_node, list_nodes
from api_service.operations.node_remove import remove_node
from api_service.operations.node_update import update_node
from api_service.servicers.call import Context, deadline_of


class NodeServicer(pb2_grpc.NodeServiceServicer):
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def AddNode(self, request: pb2.AddNodeRequest, context: Context) -> pb2.AddNodeResponse:
        asked = conversion.node_request_from_proto(request)
        node = await add_node(self._engine, asked, deadline=deadline_of(context))
        return pb2.AddNodeResponse(node=conversion.node_to_proto(node))

    async def InspectNode(self, request: pb2.InspectNodeRequest, context: Context) -> pb2.InspectNodeResponse:
        return pb2.InspectNodeResponse(node=conversion.node_to_proto(await inspect_node(self._engine, request.node)))

    async def ListNodes(self, request: pb2.ListNodesRequest, context: Context) -> pb2.ListNodesResponse:
        nodes = await list_nodes(self._engine, conversion.node_filter_from_proto(request))
        return pb2.ListNodesResponse(nodes=map(conversion.node_to_proto, nodes))

    async def UpdateNode(self, request: pb2.UpdateNodeRequest, context: Context) -> pb2.UpdateNodeResponse:
        wanted = conversion.node_change_from_proto(request)
        return pb2.UpdateNodeResponse(
            node=conversion.node_to_proto(await update_node(self._engine, request.node, wanted))
        )

    async def RemoveNode(self, request: pb2.RemoveNodeRequest, context: Context) -> pb2.RemoveNodeResponse:
        forgotten = await remove_node(self._engine, request.node, force=request.force, deadline=deadline_of(context))
        return conversion.forgotten_to_proto(forgotten)
