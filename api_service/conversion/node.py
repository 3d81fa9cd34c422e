"""Between the messages about nodes and the records."""

from __future__ import annotations

from slipway.v1 import node_service_pb2 as pb2

from api_service.conversion.times import timestamp
from api_service.operations.node_add import NodeRequest
from api_service.operations.node_list import NodeFilter, ShownNode
from api_service.operations.node_remove import Forgotten
from api_service.operations.node_update import NodeChange
from api_service.records.node import Availability, NodeRecord, NodeState

_CPU = 1_000_000_000  # nano CPUs
_AVAILABILITIES = {
    Availability.ACTIVE: pb2.NODE_AVAILABILITY_ACTIVE,
    Availability.CORDONED: pb2.NODE_AVAILABILITY_CORDONED,
    Availability.DRAINED: pb2.NODE_AVAILABILITY_DRAINED,
}
_STATES = {
    NodeState.READY: pb2.NODE_STATE_READY,
    NodeState.UNREACHABLE: pb2.NODE_STATE_UNREACHABLE,
    NodeState.LOST: pb2.NODE_STATE_LOST,
}
_AVAILABILITIES_FROM_PROTO = {number: availability for availability, number in _AVAILABILITIES.items()}
_STATES_FROM_PROTO = {number: state for state, number in _STATES.items()}


def node_request_from_proto(message: pb2.AddNodeRequest) -> NodeRequest:
    return NodeRequest(
        name=message.name,
        address=message.address,
        labels=dict(message.labels),
        availability=_AVAILABILITIES_FROM_PROTO.get(message.availability),
    )


def node_filter_from_proto(message: pb2.ListNodesRequest) -> NodeFilter:
    return NodeFilter(
        names=tuple(message.name),
        labels=tuple(message.label),
        availabilities=frozenset(_AVAILABILITIES_FROM_PROTO[each] for each in message.availability if each),
        states=frozenset(_STATES_FROM_PROTO[each] for each in message.state if each),
    )


def node_change_from_proto(message: pb2.UpdateNodeRequest) -> NodeChange:
    return NodeChange(
        set_labels=dict(message.set_labels),
        remove_labels=tuple(message.remove_labels),
        availability=_AVAILABILITIES_FROM_PROTO.get(message.availability),
    )


def node_to_proto(shown: ShownNode) -> pb2.Node:
    node = shown.record
    return pb2.Node(
        name=node.name,
        address=node.address,
        labels=dict(node.labels),
        availability=_AVAILABILITIES[node.availability],
        created_at=timestamp(node.created_at),
        state=_STATES[node.status.state],
        state_reason=node.status.reason,
        state_since=timestamp(node.status.since),
        executor_id=node.executor_id,
        configured=node.configured,
        description=_description_to_proto(node),
        capacity=pb2.NodeResources(nano_cpus=node.description.cpus * _CPU, memory=node.description.memory),
        usage=pb2.NodeUsage(
            containers=shown.containers,
            containers_running=shown.running,
            reserved=pb2.NodeResources(nano_cpus=shown.usage.nano_cpus, memory=shown.usage.memory),
        ),
    )


def _description_to_proto(node: NodeRecord) -> pb2.NodeDescription:
    said = node.description
    return pb2.NodeDescription(
        version=said.version,
        hostname=said.hostname,
        os=said.os,
        architecture=said.architecture,
        kernel_version=said.kernel_version,
        cgroup_layout=said.cgroup_layout,
        runtimes=said.runtimes,
        warnings=said.warnings,
    )


def forgotten_to_proto(forgotten: Forgotten) -> pb2.RemoveNodeResponse:
    return pb2.RemoveNodeResponse(
        containers=forgotten.containers, volumes=forgotten.volumes, networks=forgotten.networks
    )
