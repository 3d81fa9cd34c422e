"""Between the messages about the engine itself and the domain."""

from __future__ import annotations

from collections.abc import Sequence

from slipway.v1 import system_service_pb2 as system_pb2

from api_service.conversion.times import moment, timestamp
from api_service.executor_client.node import DiskUsage
from api_service.operations.image_usage import ImageUsage
from api_service.operations.system_events import EventQuery
from api_service.operations.system_info import Info, NodeState, Versions
from api_service.records.event import Event, EventCursor


def versions_to_proto(versions: Versions) -> system_pb2.GetVersionResponse:
    return system_pb2.GetVersionResponse(
        version=versions.version,
        api_version=versions.api_version,
        python_version=versions.python_version,
        nodes=[
            system_pb2.NodeVersion(
                node=node.name,
                version=node.facts.version if node.facts else "",
                kernel_version=node.facts.kernel_version if node.facts else "",
                available=node.facts is not None,
            )
            for node in versions.nodes
        ],
    )


def info_to_proto(info: Info) -> system_pb2.GetInfoResponse:
    return system_pb2.GetInfoResponse(
        containers=info.containers,
        containers_running=info.running,
        containers_paused=info.paused,
        containers_stopped=info.stopped,
        images=info.images,
        nodes=[_node_to_proto(node) for node in info.nodes],
    )


def _node_to_proto(node: NodeState) -> system_pb2.NodeInfo:
    facts = node.facts
    if facts is None:
        return system_pb2.NodeInfo(name=node.name, available=False, error=node.error)
    return system_pb2.NodeInfo(
        name=node.name,
        available=True,
        hostname=facts.hostname,
        os=facts.os,
        architecture=facts.architecture,
        kernel_version=facts.kernel_version,
        cpus=facts.cpus,
        memory=facts.memory,
        cgroup_layout=facts.cgroup_layout,
        runtimes=facts.runtimes,
        warnings=facts.warnings,
    )


def disk_usage_to_proto(
    usage: DiskUsage, images: Sequence[ImageUsage], warnings: Sequence[str]
) -> system_pb2.GetDiskUsageResponse:
    return system_pb2.GetDiskUsageResponse(
        warnings=warnings,
        images_size=usage.images_size,
        containers_size=usage.containers_size,
        logs_size=usage.logs_size,
        volumes_size=usage.volumes_size,
        images=[
            system_pb2.ImageUsage(
                id=each.image.id,
                repo_tags=each.image.names,
                size=each.shared + each.unique,
                shared_size=each.shared,
                unique_size=each.unique,
                containers=each.containers,
            )
            for each in images
        ],
    )


def event_query_from_proto(message: system_pb2.StreamEventsRequest) -> EventQuery:
    return EventQuery(
        cursor=message.cursor,
        since=moment(message.since) if message.HasField("since") else None,
        until=moment(message.until) if message.HasField("until") else None,
        types=frozenset(message.type),
        actions=frozenset(message.action),
        containers=tuple(message.container),
        labels=tuple(message.label),
    )


def event_to_proto(place: EventCursor, event: Event) -> system_pb2.StreamEventsResponse:
    return system_pb2.StreamEventsResponse(
        event=system_pb2.Event(
            type=event.type.value,
            action=event.action,
            actor_id=event.actor_id,
            attributes=dict(event.attributes),
            time=timestamp(event.time),
        ),
        cursor=str(place),
    )
