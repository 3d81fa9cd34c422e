"""Between the messages about containers and the records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from slipway.v1 import container_pb2 as container_pb2
from slipway.v1 import container_service_pb2 as service_pb2
from slipway.v1 import health_pb2, mount_pb2

from api_service.conversion.container_config import config_from_proto, config_to_proto
from api_service.conversion.host_config import host_config_from_proto, host_config_to_proto, restart_policy_from_proto
from api_service.conversion.image import credentials_from_proto
from api_service.conversion.networking import networking_from_proto, networking_to_proto, port_bindings_from_proto
from api_service.conversion.ports import ports_as_listed, ports_by_name
from api_service.conversion.resources import resources_from_proto
from api_service.conversion.times import moment, optional_timestamp, timestamp
from api_service.executor_client.logs import LogLine, LogQuery, LogStream
from api_service.nodes.endpoints import dns_names
from api_service.operations.container_draft import CreateRequest
from api_service.operations.container_image import PullPolicy
from api_service.operations.container_list import ContainerFilter, Page, health_of
from api_service.operations.container_prune import PruneFilter
from api_service.operations.container_status_text import status_text
from api_service.operations.container_update import UpdateRequest
from api_service.operations.container_wait import WaitCondition, Waited
from api_service.records.container import ContainerRecord, Status
from api_service.records.health import Health, HealthStatus
from api_service.records.mount import DEFAULT_VOLUME_DRIVER, MountPoint, MountType
from api_service.validation.network_mode import HOST, NONE
from api_service.validation.port_changes import PortChanges
from common.errors import Violation

_STATUSES = {
    Status.CREATED: container_pb2.CONTAINER_STATUS_CREATED,
    Status.RUNNING: container_pb2.CONTAINER_STATUS_RUNNING,
    Status.PAUSED: container_pb2.CONTAINER_STATUS_PAUSED,
    Status.RESTARTING: container_pb2.CONTAINER_STATUS_RESTARTING,
    Status.REMOVING: container_pb2.CONTAINER_STATUS_REMOVING,
    Status.EXITED: container_pb2.CONTAINER_STATUS_EXITED,
    Status.DEAD: container_pb2.CONTAINER_STATUS_DEAD,
}
HEALTH_STATUSES = {
    HealthStatus.NONE: health_pb2.HEALTH_STATUS_NONE,
    HealthStatus.STARTING: health_pb2.HEALTH_STATUS_STARTING,
    HealthStatus.HEALTHY: health_pb2.HEALTH_STATUS_HEALTHY,
    HealthStatus.UNHEALTHY: health_pb2.HEALTH_STATUS_UNHEALTHY,
}
_STATUS_OF = {number: status for status, number in _STATUSES.items()}
_CONDITIONS = {
    service_pb2.WAIT_CONDITION_UNSPECIFIED: WaitCondition.NOT_RUNNING,
    service_pb2.WAIT_CONDITION_NOT_RUNNING: WaitCondition.NOT_RUNNING,
    service_pb2.WAIT_CONDITION_NEXT_EXIT: WaitCondition.NEXT_EXIT,
    service_pb2.WAIT_CONDITION_REMOVED: WaitCondition.REMOVED,
}
_LOG_STREAMS = {
    LogStream.STDOUT: service_pb2.LOG_STREAM_STDOUT,
    LogStream.STDERR: service_pb2.LOG_STREAM_STDERR,
}
_PULL_POLICIES = {
    service_pb2.PULL_POLICY_UNSPECIFIED: PullPolicy.DEFAULT,
    service_pb2.PULL_POLICY_MISSING: PullPolicy.MISSING,
    service_pb2.PULL_POLICY_ALWAYS: PullPolicy.ALWAYS,
    service_pb2.PULL_POLICY_NEVER: PullPolicy.NEVER,
}


def create_request_from_proto(
    message: service_pb2.CreateContainerRequest, violations: Sequence[Violation]
) -> CreateRequest:
    return CreateRequest(
        name=message.name,
        config=config_from_proto(message.config),
        host_config=host_config_from_proto(message.host_config),
        networking_config=networking_from_proto(message.networking_config),
        platform=message.platform,
        pull_policy=_PULL_POLICIES.get(message.pull_policy, PullPolicy.NEVER),
        credentials=credentials_from_proto(message.credentials),
        request_id=message.request_id,
        violations=violations,
    )


def update_request_from_proto(message: service_pb2.UpdateContainerRequest) -> UpdateRequest:
    policy = restart_policy_from_proto(message.restart_policy) if message.HasField("restart_policy") else None
    ports = PortChanges(
        port_bindings=port_bindings_from_proto(message.port_bindings),
        unpublish=tuple(message.unpublish),
        publish_all_ports=message.publish_all_ports if message.HasField("publish_all_ports") else None,
    )
    return UpdateRequest(resources=resources_from_proto(message.resources), restart_policy=policy, ports=ports)


def container_to_proto(record: ContainerRecord, exec_ids: Sequence[str]) -> container_pb2.Container:
    return container_pb2.Container(
        id=record.id,
        name=record.name,
        created_at=timestamp(record.created_at),
        path=record.path,
        args=record.args,
        config=config_to_proto(record.config),
        host_config=host_config_to_proto(record.host_config),
        networking_config=networking_to_proto(record.networking_config),
        image_id=record.image_id,
        state=_state_to_proto(record),
        network_settings=container_pb2.NetworkSettings(
            sandbox_id=record.network.sandbox_id,
            sandbox_key=record.network.sandbox_key,
            networks=_endpoints_to_proto(record),
            ports=ports_by_name(record),
        ),
        node=record.node,
        platform=record.platform,
        mounts=[_mount_point_to_proto(mount) for mount in record.mount_points],
        restart_count=record.state.restart_count,
        exec_ids=exec_ids,
    )


def _mount_point_to_proto(mount: MountPoint) -> mount_pb2.MountPoint:
    volume = mount.type is MountType.VOLUME
    return mount_pb2.MountPoint(
        type=mount.type.value,
        name=mount.source if volume else "",
        source="" if volume else mount.source,
        destination=mount.destination,
        driver=DEFAULT_VOLUME_DRIVER if volume else "",
        mode=mount.mode,
        rw=not mount.read_only,
        propagation=mount.propagation,
    )


def _state_to_proto(record: ContainerRecord) -> container_pb2.ContainerState:
    state, status = record.state, record.status
    return container_pb2.ContainerState(
        status=_STATUSES[status],
        running=state.active,
        paused=status is Status.PAUSED,
        restarting=status is Status.RESTARTING,
        oom_killed=state.oom_killed,
        dead=status is Status.DEAD,
        pid=state.pid,
        exit_code=state.exit_code,
        error=state.error,
        started_at=optional_timestamp(state.started_at),
        finished_at=optional_timestamp(state.finished_at),
        health=_health_to_proto(state.health) if state.health is not None else None,
        next_restart_at=optional_timestamp(state.next_restart_at),
    )


def _health_to_proto(health: Health) -> health_pb2.Health:
    return health_pb2.Health(
        status=HEALTH_STATUSES[health.status],
        failing_streak=health.failing_streak,
        log=[
            health_pb2.HealthProbeResult(
                started_at=timestamp(probe.started_at),
                ended_at=timestamp(probe.ended_at),
                exit_code=probe.exit_code,
                output=probe.output,
            )
            for probe in health.log
        ],
    )


def _endpoints_to_proto(record: ContainerRecord) -> dict[str, container_pb2.EndpointSettings]:
    """The networks joined, with what was asked of them and, while the process runs, what was observed."""
    endpoints = dict(networking_to_proto(record.networking_config).endpoints_config)
    if record.host_config.network_mode in (HOST, NONE):
        endpoints.setdefault(record.host_config.network_mode, container_pb2.EndpointSettings())
    for name, settings in record.networking_config.endpoints.items():
        endpoints[name].dns_names.extend(dns_names(record, settings) if settings.network_id else ())
    for seen in record.network.endpoints:
        endpoint = endpoints.setdefault(seen.network_name, container_pb2.EndpointSettings())
        endpoint.network_id = seen.network_id
        endpoint.mac_address = seen.mac_address
        endpoint.ip_address = seen.ip_address
        endpoint.ip_prefix_len = seen.ip_prefix_len
        endpoint.gateway = seen.gateway
        endpoint.global_ipv6_address = seen.global_ipv6_address
        endpoint.global_ipv6_prefix_len = seen.global_ipv6_prefix_len
        endpoint.ipv6_gateway = seen.ipv6_gateway
    return endpoints


def filter_from_proto(message: service_pb2.ContainerFilters) -> ContainerFilter:
    """The status `unspecified` means any."""
    unspecified = container_pb2.CONTAINER_STATUS_UNSPECIFIED in message.status
    return ContainerFilter(
        ids=tuple(message.id),
        names=tuple(message.name),
        labels=tuple(message.label),
        ancestors=tuple(message.ancestor),
        statuses=frozenset(Status) if unspecified else frozenset(_STATUS_OF[number] for number in message.status),
        exited=tuple(message.exited),
        networks=tuple(message.network),
        before=message.before,
        since=message.since,
        healths=_healths(message),
        volumes=tuple(message.volume),
    )


def _healths(message: service_pb2.ContainerFilters) -> frozenset[HealthStatus]:
    """`unspecified` means any."""
    if health_pb2.HEALTH_STATUS_UNSPECIFIED in message.health:
        return frozenset()
    return frozenset(status for status, number in HEALTH_STATUSES.items() if number in message.health)


def page_to_proto(page: Page, *, now: int) -> service_pb2.ListContainersResponse:
    return service_pb2.ListContainersResponse(
        containers=[_summary_to_proto(record, now) for record in page.containers],
        next_page_token=page.next_page_token,
    )


def _summary_to_proto(record: ContainerRecord, now: int) -> container_pb2.ContainerSummary:
    return container_pb2.ContainerSummary(
        id=record.id,
        name=record.name,
        image=record.config.image,
        image_id=record.image_id,
        command=" ".join((record.path, *record.args)),
        created_at=timestamp(record.created_at),
        state=_STATUSES[record.status],
        status=status_text(record, now=now),
        labels=dict(record.config.labels),
        network_mode=record.host_config.network_mode,
        networks=_endpoints_to_proto(record),
        node=record.node,
        health=HEALTH_STATUSES[health_of(record)],
        mounts=[mount.source for mount in record.mount_points if mount.source],
        ports=ports_as_listed(record),
    )


def prune_filter_from_proto(message: service_pb2.PruneContainersRequest) -> PruneFilter:
    return PruneFilter(labels=tuple(message.label), until=moment(message.until) if message.HasField("until") else None)


def condition_from_proto(condition: service_pb2.WaitCondition.ValueType) -> WaitCondition:
    return _CONDITIONS[condition]


def waited_to_proto(waited: Waited) -> service_pb2.WaitContainerResponse:
    return service_pb2.WaitContainerResponse(exit_code=waited.exit_code, error=waited.error)


def log_query_from_proto(message: service_pb2.StreamLogsRequest) -> LogQuery:
    """Without the container's id: that is looked up later."""
    return LogQuery(
        container_id="",
        stdout=message.stdout if message.HasField("stdout") else True,
        stderr=message.stderr if message.HasField("stderr") else True,
        follow=message.follow,
        since=moment(message.since) if message.HasField("since") else None,
        until=moment(message.until) if message.HasField("until") else None,
        tail=message.tail if message.HasField("tail") else None,
    )


def log_lines_to_proto(lines: Iterable[LogLine]) -> service_pb2.StreamLogsResponse:
    response = service_pb2.StreamLogsResponse()
    messages = response.lines
    for line in lines:
        # Filled in its place: a message that is made and then copied into another takes more than twice as long.
        message = messages.add()
        message.stream = _LOG_STREAMS[line.stream]
        time = message.timestamp
        time.seconds, time.nanos = divmod(line.time, 1_000_000_000)
        message.data = line.data
        if line.dropped:
            message.dropped = line.dropped
    return response
