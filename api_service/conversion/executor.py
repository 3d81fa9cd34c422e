"""Between the executor's messages and what `api_service.nodes.executor` calls the same things."""

from __future__ import annotations

from slipway.executor.v1 import container_spec_pb2 as spec_pb2
from slipway.executor.v1 import image_store_service_pb2 as image_pb2
from slipway.executor.v1 import node_service_pb2 as node_pb2
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb2
from slipway.executor.v1 import volume_store_service_pb2 as volume_pb2

from api_service.conversion.times import timestamp
from api_service.nodes.container_spec import EndpointSpec
from api_service.nodes.executor import (
    ContainerSnapshot,
    DiskUsage,
    Endpoint,
    Event,
    ExecExited,
    Exited,
    HealthChanged,
    JournalAnswer,
    JournalEntry,
    LogLine,
    LogQuery,
    LogStream,
    NetworkConnected,
    NetworkDisconnected,
    NodeFacts,
    NodeSnapshot,
    Paused,
    RestartCancelled,
    Signaled,
    SnapshotPhase,
    Started,
    StartRefused,
    StoredImage,
    StoredVolume,
    Unpaused,
    Updated,
    UserMapping,
)
from api_service.records.container import BoundPort
from api_service.records.health import Health, HealthStatus, ProbeResult
from api_service.records.network import BRIDGE_DRIVER
from common.errors import Internal

_PHASES = {
    runtime_pb2.CONTAINER_PHASE_CREATED: SnapshotPhase.CREATED,
    runtime_pb2.CONTAINER_PHASE_RUNNING: SnapshotPhase.RUNNING,
    runtime_pb2.CONTAINER_PHASE_STOPPED: SnapshotPhase.STOPPED,
    runtime_pb2.CONTAINER_PHASE_BROKEN: SnapshotPhase.BROKEN,
    runtime_pb2.CONTAINER_PHASE_PAUSED: SnapshotPhase.PAUSED,
    runtime_pb2.CONTAINER_PHASE_RESTARTING: SnapshotPhase.RESTARTING,
}
_HEALTH_STATUSES = {
    runtime_pb2.HEALTH_STATUS_STARTING: HealthStatus.STARTING,
    runtime_pb2.HEALTH_STATUS_HEALTHY: HealthStatus.HEALTHY,
    runtime_pb2.HEALTH_STATUS_UNHEALTHY: HealthStatus.UNHEALTHY,
}
_PROTOCOLS = {
    spec_pb2.PORT_PROTOCOL_TCP: "tcp",
    spec_pb2.PORT_PROTOCOL_UDP: "udp",
    spec_pb2.PORT_PROTOCOL_SCTP: "sctp",
}
_LOG_STREAMS = {
    runtime_pb2.LOG_STREAM_STDOUT: LogStream.STDOUT,
    runtime_pb2.LOG_STREAM_STDERR: LogStream.STDERR,
}


def entry_from_proto(message: runtime_pb2.JournalEntry) -> JournalEntry:
    """Raises Internal for an event this version does not know."""
    return JournalEntry(
        sequence=message.sequence,
        time=message.time.ToNanoseconds(),
        container_id=message.container_id,
        event=_event_from_proto(message),
    )


def _event_from_proto(message: runtime_pb2.JournalEntry) -> Event:
    match message.WhichOneof("event"):
        case "started":
            started = message.started
            return Started(
                start_id=started.start_id,
                pid=started.pid,
                sandbox_id=started.sandbox_id,
                netns_path=started.netns_path,
                endpoints=tuple(_endpoint_from_proto(endpoint) for endpoint in started.endpoints),
                restart_count=started.restart_count,
                ports=tuple(_bound_port(port) for port in started.ports),
            )
        case "start_failed":
            failed = message.start_failed
            return StartRefused(
                start_id=failed.start_id,
                exit_code=failed.exit_code,
                message=failed.message,
                reason=failed.reason,
                next_start=failed.next_start.ToNanoseconds() if failed.HasField("next_start") else None,
            )
        case "exited":
            exited = message.exited
            return Exited(
                start_id=exited.start_id,
                exit_code=exited.exit_code if exited.HasField("exit_code") else None,
                oom_killed=exited.oom_killed,
                error=exited.error,
                next_start=exited.next_start.ToNanoseconds() if exited.HasField("next_start") else None,
                lease_over=exited.lease_over,
            )
        case "signaled":
            return Signaled(signal=message.signaled.signal)
        case "paused":
            return Paused()
        case "unpaused":
            return Unpaused()
        case "restart_cancelled":
            return RestartCancelled()
        case "updated":
            updated = message.updated
            changed = updated.HasField("published")
            return Updated(ports=tuple(_bound_port(port) for port in updated.published.ports) if changed else None)
        case "health_changed":
            return HealthChanged(health=_health_from_proto(message.health_changed))
        case "network_connected":
            connected = message.network_connected
            return NetworkConnected(
                spec=_endpoint_spec_from_proto(connected.spec),
                network_name=connected.network_name,
                endpoints=tuple(_endpoint_from_proto(endpoint) for endpoint in connected.endpoints),
                ports=tuple(_bound_port(port) for port in connected.ports),
            )
        case "network_disconnected":
            disconnected = message.network_disconnected
            return NetworkDisconnected(
                network_id=disconnected.network_id,
                network_name=disconnected.network_name,
                endpoints=tuple(_endpoint_from_proto(endpoint) for endpoint in disconnected.endpoints),
                ports=tuple(_bound_port(port) for port in disconnected.ports),
            )
        case "exec_exited":
            ended = message.exec_exited
            exit_code = ended.exit_code if ended.HasField("exit_code") else None
            return ExecExited(exec_id=ended.exec_id, exit_code=exit_code, error=ended.error)
        case _:
            raise Internal(f"journal entry {message.sequence} tells of something this version does not know")


def _health_from_proto(message: runtime_pb2.HealthChanged) -> Health:
    return Health(
        status=_HEALTH_STATUSES.get(message.status, HealthStatus.STARTING),
        failing_streak=message.failing_streak,
        log=tuple(
            ProbeResult(
                started_at=probe.started_at.ToNanoseconds(),
                ended_at=probe.ended_at.ToNanoseconds(),
                exit_code=probe.exit_code,
                output=probe.output,
            )
            for probe in message.log
        ),
    )


def _endpoint_spec_from_proto(message: spec_pb2.EndpointSpec) -> EndpointSpec:
    return EndpointSpec(
        network_id=message.network_id,
        mac_address=message.mac_address,
        ipv4_address=message.ipv4_address,
        ipv6_address=message.ipv6_address,
        dns_names=tuple(message.dns_names),
        gateway_priority=message.gateway_priority,
    )


def _endpoint_from_proto(message: runtime_pb2.Endpoint) -> Endpoint:
    return Endpoint(
        network_id=message.network_id,
        network_name=message.network_name,
        interface=message.interface,
        mac_address=message.mac_address,
        ipv4_address=message.ipv4_address,
        ipv4_prefix_length=message.ipv4_prefix_length,
        ipv4_gateway=message.ipv4_gateway,
        ipv6_address=message.ipv6_address,
        ipv6_prefix_length=message.ipv6_prefix_length,
        ipv6_gateway=message.ipv6_gateway,
        network_driver=message.network_driver or BRIDGE_DRIVER,
    )


def _bound_port(port: runtime_pb2.BoundPort) -> BoundPort:
    return BoundPort(
        host_ip=port.host_ip,
        host_port=port.host_port,
        container_port=port.container_port,
        protocol=_PROTOCOLS.get(port.protocol, "tcp"),
    )


def answer_from_proto(message: runtime_pb2.FollowJournalResponse) -> JournalAnswer:
    """What a newer executor tells and this version does not know is left out; the entries after it are not."""
    known = message.HasField("entry") and message.entry.WhichOneof("event") is not None
    return JournalAnswer(journal_id=message.journal_id, entry=entry_from_proto(message.entry) if known else None)


def snapshot_from_proto(message: runtime_pb2.ListContainersResponse) -> NodeSnapshot:
    containers = tuple(_container_from_proto(container) for container in message.containers)
    return NodeSnapshot(containers=containers, journal_id=message.journal_id, sequence=message.sequence)


def _container_from_proto(message: runtime_pb2.ContainerSnapshot) -> ContainerSnapshot:
    return ContainerSnapshot(
        container_id=message.container_id,
        phase=_PHASES.get(message.phase, SnapshotPhase.BROKEN),
        started=entry_from_proto(message.started) if message.HasField("started") else None,
        last=entry_from_proto(message.last) if message.HasField("last") else None,
        error=message.error,
        health=_health_from_proto(message.health) if message.HasField("health") else None,
        execs=tuple(message.exec_ids),
    )


def log_query_to_proto(query: LogQuery) -> runtime_pb2.ReadLogsRequest:
    request = runtime_pb2.ReadLogsRequest(
        container_id=query.container_id,
        stdout=query.stdout,
        stderr=query.stderr,
        follow=query.follow,
        tail=query.tail,
    )
    if query.since is not None:
        request.since.CopyFrom(timestamp(query.since))
    if query.until is not None:
        request.until.CopyFrom(timestamp(query.until))
    return request


def log_line_from_proto(message: runtime_pb2.LogLine) -> LogLine:
    written = message.timestamp
    return LogLine(
        stream=_LOG_STREAMS.get(message.stream, LogStream.STDOUT),
        # Not ToNanoseconds(), which costs more than the rest of the line.
        time=written.seconds * 1_000_000_000 + written.nanos,
        data=message.data,
        dropped=message.dropped,
    )


def stored_image_from_proto(message: image_pb2.StoredImage) -> StoredImage:
    return StoredImage(
        id=message.id,
        config=message.config,
        layers=tuple(message.layers),
        size=message.size,
        names=tuple(message.names),
        layer_sizes=tuple(message.layer_sizes),
    )


def stored_volume_from_proto(message: volume_pb2.StoredVolume) -> StoredVolume:
    return StoredVolume(
        name=message.name, mountpoint=message.mountpoint, options=dict(message.options), size=message.size
    )


def facts_from_proto(message: node_pb2.GetNodeResponse) -> NodeFacts:
    return NodeFacts(
        node_id=message.node_id,
        version=message.version,
        hostname=message.hostname,
        os=message.os,
        architecture=message.architecture,
        kernel_version=message.kernel_version,
        cpus=message.cpus,
        memory=message.memory,
        cgroup_layout=message.cgroup_layout,
        runtimes=tuple(message.runtimes),
        ipv4_forwarding=message.ipv4_forwarding,
        warnings=tuple(message.warnings),
        capabilities=tuple(message.capabilities),
        cgroup_features=frozenset(message.cgroup_features),
        cpuset_cpus=message.cpuset_cpus,
        cpuset_mems=message.cpuset_mems,
        seccomp=message.seccomp,
        apparmor=message.apparmor,
        selinux=message.selinux,
        recursive_read_only=message.recursive_read_only,
        init=message.init,
        user_mapping=_mapping_from_proto(message.user_mapping) if message.HasField("user_mapping") else None,
        overlay_address=message.overlay_address,
    )


def _mapping_from_proto(message: node_pb2.UserMapping) -> UserMapping:
    return UserMapping(first_uid=message.first_uid, first_gid=message.first_gid, count=message.count)


def disk_usage_from_proto(message: node_pb2.GetDiskUsageResponse) -> DiskUsage:
    return DiskUsage(
        images_size=message.images_size,
        containers_size=message.containers_size,
        logs_size=message.logs_size,
        volumes_size=message.volumes_size,
    )
