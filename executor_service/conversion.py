"""Messages of `slipway.executor.v1` to the executor's own words and back. Specifications, streams, files, images and
networks have modules of their own; no other module knows both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from slipway.executor.v1 import container_spec_pb2, node_service_pb2, runtime_service_pb2

from common.protocol_version import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION
from executor_service.container import EndpointSpec
from executor_service.health import HealthStatus
from executor_service.journal import (
    ExecExited,
    Exited,
    HealthChanged,
    JournalEntry,
    NetworkConnected,
    NetworkDisconnected,
    Paused,
    RestartCancelled,
    Signaled,
    Started,
    StartFailure,
    Unpaused,
    Updated,
)
from executor_service.logs.reader import LogQuery
from executor_service.logs.record import LogRecord, Stream
from executor_service.network.sandbox import Endpoint
from executor_service.operations.container_list import NodeSnapshot
from executor_service.operations.node_inspect import DiskUsage, NodeDescription
from executor_service.ports import BoundPort, PortProtocol
from executor_service.records import ContainerRecord, Phase
from executor_service.stats import ContainerStats, ProcessInfo
from executor_service.user_mapping import UserMapping

_PHASES = {
    Phase.CREATED: runtime_service_pb2.CONTAINER_PHASE_CREATED,
    Phase.RUNNING: runtime_service_pb2.CONTAINER_PHASE_RUNNING,
    Phase.PAUSED: runtime_service_pb2.CONTAINER_PHASE_PAUSED,
    Phase.RESTARTING: runtime_service_pb2.CONTAINER_PHASE_RESTARTING,
    Phase.STOPPED: runtime_service_pb2.CONTAINER_PHASE_STOPPED,
    Phase.BROKEN: runtime_service_pb2.CONTAINER_PHASE_BROKEN,
}
_HEALTH_STATUSES = {
    HealthStatus.STARTING: runtime_service_pb2.HEALTH_STATUS_STARTING,
    HealthStatus.HEALTHY: runtime_service_pb2.HEALTH_STATUS_HEALTHY,
    HealthStatus.UNHEALTHY: runtime_service_pb2.HEALTH_STATUS_UNHEALTHY,
}
_PROTOCOLS = {
    PortProtocol.TCP: container_spec_pb2.PORT_PROTOCOL_TCP,
    PortProtocol.UDP: container_spec_pb2.PORT_PROTOCOL_UDP,
    PortProtocol.SCTP: container_spec_pb2.PORT_PROTOCOL_SCTP,
}
_STREAMS = {
    Stream.STDOUT: runtime_service_pb2.LOG_STREAM_STDOUT,
    Stream.STDERR: runtime_service_pb2.LOG_STREAM_STDERR,
}


def entry_to_proto(entry: JournalEntry) -> runtime_service_pb2.JournalEntry:
    message = runtime_service_pb2.JournalEntry(
        sequence=entry.sequence, time=_timestamp(entry.time), container_id=entry.container_id
    )
    match entry.event:
        case Started() as event:
            message.started.CopyFrom(_started(event))
        case StartFailure() as event:
            message.start_failed.start_id = event.start_id
            message.start_failed.exit_code = event.exit_code
            message.start_failed.message = event.message
            message.start_failed.reason = event.reason
            if event.next_start is not None:
                message.start_failed.next_start.FromNanoseconds(event.next_start)
        case Exited() as event:
            message.exited.start_id = event.start_id
            message.exited.oom_killed = event.oom_killed
            message.exited.error = event.error
            message.exited.lease_over = event.lease_over
            if event.exit_code is not None:
                message.exited.exit_code = event.exit_code
            if event.next_start is not None:
                message.exited.next_start.FromNanoseconds(event.next_start)
        case Signaled() as event:
            message.signaled.signal = event.signal
        case Paused():
            message.paused.SetInParent()
        case Unpaused():
            message.unpaused.SetInParent()
        case RestartCancelled():
            message.restart_cancelled.SetInParent()
        case Updated() as event:
            message.updated.SetInParent()
            if event.ports is not None:
                message.updated.published.SetInParent()
                message.updated.published.ports.extend(_bound_port(port) for port in event.ports)
        case HealthChanged() as event:
            message.health_changed.CopyFrom(_health_changed(event))
        case NetworkConnected() as event:
            message.network_connected.network_name = event.network_name
            message.network_connected.spec.CopyFrom(_endpoint_spec(event.spec))
            message.network_connected.endpoints.extend(_endpoint(endpoint) for endpoint in event.endpoints)
            message.network_connected.ports.extend(_bound_port(port) for port in event.ports)
        case NetworkDisconnected() as event:
            message.network_disconnected.network_id = event.network_id
            message.network_disconnected.network_name = event.network_name
            message.network_disconnected.endpoints.extend(_endpoint(endpoint) for endpoint in event.endpoints)
            message.network_disconnected.ports.extend(_bound_port(port) for port in event.ports)
        case ExecExited() as event:
            message.exec_exited.exec_id = event.exec_id
            message.exec_exited.error = event.error
            if event.exit_code is not None:
                message.exec_exited.exit_code = event.exit_code
    return message


def _health_changed(event: HealthChanged) -> runtime_service_pb2.HealthChanged:
    return runtime_service_pb2.HealthChanged(
        status=_HEALTH_STATUSES[event.status],
        failing_streak=event.failing_streak,
        log=[
            runtime_service_pb2.ProbeResult(
                started_at=_timestamp(probe.started_at),
                ended_at=_timestamp(probe.ended_at),
                exit_code=probe.exit_code,
                output=probe.output,
            )
            for probe in event.log
        ],
    )


def _started(event: Started) -> runtime_service_pb2.Started:
    return runtime_service_pb2.Started(
        start_id=event.start_id,
        pid=event.pid,
        sandbox_id=event.sandbox_id,
        netns_path=event.netns_path,
        endpoints=[_endpoint(endpoint) for endpoint in event.endpoints],
        restart_count=event.restart_count,
        ports=[_bound_port(port) for port in event.ports],
    )


def _bound_port(port: BoundPort) -> runtime_service_pb2.BoundPort:
    return runtime_service_pb2.BoundPort(
        host_ip=port.host_ip,
        host_port=port.host_port,
        container_port=port.container_port,
        protocol=_PROTOCOLS[port.protocol],
    )


def _endpoint_spec(spec: EndpointSpec) -> container_spec_pb2.EndpointSpec:
    return container_spec_pb2.EndpointSpec(
        network_id=spec.network_id,
        mac_address=spec.mac_address,
        ipv4_address=spec.ipv4_address,
        ipv6_address=spec.ipv6_address,
        dns_names=spec.dns_names,
        gateway_priority=spec.gateway_priority,
    )


def _endpoint(endpoint: Endpoint) -> runtime_service_pb2.Endpoint:
    return runtime_service_pb2.Endpoint(
        network_id=endpoint.network_id,
        network_name=endpoint.network_name,
        interface=endpoint.interface,
        mac_address=endpoint.mac_address,
        ipv4_address=endpoint.ipv4_address,
        ipv4_prefix_length=endpoint.ipv4_prefix_length,
        ipv4_gateway=endpoint.ipv4_gateway,
        ipv6_address=endpoint.ipv6_address,
        ipv6_prefix_length=endpoint.ipv6_prefix_length,
        ipv6_gateway=endpoint.ipv6_gateway,
        network_driver=endpoint.network_driver.value,
    )


def snapshot_to_proto(snapshot: NodeSnapshot) -> runtime_service_pb2.ListContainersResponse:
    return runtime_service_pb2.ListContainersResponse(
        containers=[_container(record, snapshot.execs.get(record.id, ())) for record in snapshot.records],
        journal_id=snapshot.journal_id,
        sequence=snapshot.sequence,
    )


def _container(record: ContainerRecord, execs: Sequence[str]) -> runtime_service_pb2.ContainerSnapshot:
    return runtime_service_pb2.ContainerSnapshot(
        container_id=record.id,
        phase=_PHASES[record.phase],
        started=entry_to_proto(record.started) if record.started else None,
        last=entry_to_proto(record.last) if record.last else None,
        error=record.error,
        health=_health_changed(record.health) if record.health else None,
        exec_ids=execs,
    )


def stats_to_proto(stats: ContainerStats) -> runtime_service_pb2.ContainerStats:
    return runtime_service_pb2.ContainerStats(
        container_id=stats.container_id,
        time=_timestamp(stats.time),
        cpu_usage=stats.cpu_usage,
        cpu_system=stats.cpu_system,
        throttled_periods=stats.throttled_periods,
        throttled_time=stats.throttled_time,
        memory_usage=stats.memory_usage,
        memory_limit=stats.memory_limit,
        memory_cache=stats.memory_cache,
        pids=stats.pids,
        pids_limit=stats.pids_limit,
        blkio_read=stats.blkio_read,
        blkio_write=stats.blkio_write,
        interfaces=[
            runtime_service_pb2.InterfaceStats(
                name=interface.name,
                rx_bytes=interface.rx_bytes,
                rx_packets=interface.rx_packets,
                rx_dropped=interface.rx_dropped,
                rx_errors=interface.rx_errors,
                tx_bytes=interface.tx_bytes,
                tx_packets=interface.tx_packets,
                tx_dropped=interface.tx_dropped,
                tx_errors=interface.tx_errors,
            )
            for interface in stats.interfaces
        ],
    )


def process_to_proto(process: ProcessInfo) -> runtime_service_pb2.ProcessInfo:
    return runtime_service_pb2.ProcessInfo(
        pid=process.pid,
        container_pid=process.container_pid,
        parent_pid=process.parent_pid,
        uid=process.uid,
        state=process.state,
        threads=process.threads,
        started_at=_timestamp(process.started_at),
        cpu_time=process.cpu_time,
        memory=process.memory,
        command=process.command,
    )


def log_query_from_proto(message: runtime_service_pb2.ReadLogsRequest) -> LogQuery:
    return LogQuery(
        tail=message.tail if message.HasField("tail") else None,
        since=_nanoseconds(message.since) if message.HasField("since") else None,
        # `until` is exclusive on the wire and inclusive here.
        until=_nanoseconds(message.until) - 1 if message.HasField("until") else None,
        follow=message.follow,
        stdout=message.stdout,
        stderr=message.stderr,
    )


def log_records_to_proto(records: Iterable[LogRecord]) -> runtime_service_pb2.ReadLogsResponse:
    lines = (
        runtime_service_pb2.LogLine(
            stream=_STREAMS[record.stream],
            timestamp=_timestamp(record.timestamp),
            data=record.data,
            dropped=record.dropped,
        )
        for record in records
    )
    return runtime_service_pb2.ReadLogsResponse(lines=lines)


def node_to_proto(node: NodeDescription) -> node_service_pb2.GetNodeResponse:
    return node_service_pb2.GetNodeResponse(
        protocol_version=PROTOCOL_VERSION,
        oldest_protocol_version=OLDEST_PROTOCOL_VERSION,
        node_id=node.node_id,
        version=node.facts.version,
        hostname=node.hostname,
        os="linux",
        architecture=node.architecture,
        kernel_version=node.kernel_version,
        cpus=node.cpus,
        memory=node.memory,
        cgroup_layout=node.facts.cgroup_layout,
        runtimes=node.facts.runtimes,
        ipv4_forwarding=node.ipv4_forwarding,
        warnings=node.facts.warnings,
        cgroup_features=sorted(node.facts.cgroups.names),
        cpuset_cpus=node.facts.cgroups.cpus,
        cpuset_mems=node.facts.cgroups.mems,
        recursive_read_only=node.recursive_read_only,
        capabilities=node.facts.capabilities,
        seccomp=node.facts.seccomp,
        apparmor=node.facts.apparmor,
        selinux=node.facts.selinux,
        init=node.facts.init,
        user_mapping=_mapping_to_proto(node.facts.user_mapping),
        overlay_address=node.overlay_address,
    )


def _mapping_to_proto(mapping: UserMapping | None) -> node_service_pb2.UserMapping | None:
    if mapping is None:
        return None
    return node_service_pb2.UserMapping(first_uid=mapping.first_uid, first_gid=mapping.first_gid, count=mapping.count)


def disk_usage_to_proto(usage: DiskUsage) -> node_service_pb2.GetDiskUsageResponse:
    return node_service_pb2.GetDiskUsageResponse(
        images_size=usage.images, containers_size=usage.containers, logs_size=usage.logs, volumes_size=usage.volumes
    )


def _timestamp(nanoseconds: int) -> Timestamp:
    # Not FromNanoseconds(), which takes three times as long, and a log has a time in each line.
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


def _nanoseconds(timestamp: Timestamp) -> int:
    # Not ToNanoseconds(): it refuses times that a client may well send.
    return timestamp.seconds * 1_000_000_000 + timestamp.nanos
