"""`slipway.executor.v1.NodeService`."""

from __future__ import annotations

from typing import Any

import grpc
from slipway.executor.v1 import node_service_pb2 as pb
from slipway.executor.v1 import node_service_pb2_grpc

from executor_service.conversion.node import disk_usage_to_proto, node_to_proto
from executor_service.node import Node
from executor_service.operations.node_inspect import NodeFacts, disk_usage, node_inspect

_Context = grpc.aio.ServicerContext[Any, Any]


class NodeServicer(node_service_pb2_grpc.NodeServiceServicer):
    def __init__(self, node: Node, facts: NodeFacts) -> None:
        self._node = node
        self._facts = facts

    async def GetNode(self, request: pb.GetNodeRequest, context: _Context) -> pb.GetNodeResponse:
        return node_to_proto(node_inspect(self._node, self._facts))

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: _Context) -> pb.RenewLeaseResponse:
        ttl = request.ttl.seconds + request.ttl.nanos / 1e9
        return pb.RenewLeaseResponse(word=await self._node.lease.renew(request.after, ttl=ttl))

    async def GetDiskUsage(self, request: pb.GetDiskUsageRequest, context: _Context) -> pb.GetDiskUsageResponse:
        return disk_usage_to_proto(await disk_usage(self._node, only=frozenset(request.container_ids)))
