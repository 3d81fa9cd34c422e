"""Messages of `slipway.executor.v1` to the executor's own words and back: the only module that knows both."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from slipway.executor.v1 import image_store_service_pb2, node_service_pb2, runtime_service_pb2

from common.errors import InvalidArgument, Violation
from executor_service.container import ContainerSpec, LogLimits, NameResolution, NetworkMode
from executor_service.journal import Exited, JournalEntry, Signaled, Started, StartFailure
from executor_service.logs.reader import LogQuery
from executor_service.logs.record import LogRecord, Stream
from executor_service.network.sandbox import Endpoint
from executor_service.operations.container_list import NodeSnapshot
from executor_service.operations.container_rules import violations
from executor_service.operations.node_inspect import DiskUsage, NodeDescription
from executor_service.records import ContainerRecord, Phase
from executor_service.storage.images import Image

_NETWORK_MODES = {
    runtime_service_pb2.NETWORK_MODE_BRIDGE: NetworkMode.BRIDGE,
    runtime_service_pb2.NETWORK_MODE_HOST: NetworkMode.HOST,
    runtime_service_pb2.NETWORK_MODE_NONE: NetworkMode.NONE,
}
_PHASES = {
    Phase.CREATED: runtime_service_pb2.CONTAINER_PHASE_CREATED,
    Phase.RUNNING: runtime_service_pb2.CONTAINER_PHASE_RUNNING,
    Phase.STOPPED: runtime_service_pb2.CONTAINER_PHASE_STOPPED,
    Phase.BROKEN: runtime_service_pb2.CONTAINER_PHASE_BROKEN,
}
_STREAMS = {
    Stream.STDOUT: runtime_service_pb2.LOG_STREAM_STDOUT,
    Stream.STDERR: runtime_service_pb2.LOG_STREAM_STDERR,
}


def spec_from_proto(message: runtime_service_pb2.ContainerSpec) -> ContainerSpec:
    """Raises InvalidArgument, with every other broken rule too, for a network mode that is none."""
    mode = _NETWORK_MODES.get(message.network_mode)
    spec = ContainerSpec(
        id=message.id,
        image_id=message.image_id,
        args=tuple(message.args),
        env=tuple(message.env),
        working_dir=message.working_dir,
        user=message.user,
        hostname=message.hostname,
        domainname=message.domainname,
        terminal=message.terminal,
        readonly_rootfs=message.readonly_rootfs,
        shm_size=message.shm_size,
        network_mode=mode or NetworkMode.NONE,
        mac_address=message.mac_address,
        names=NameResolution(
            servers=tuple(message.dns_servers),
            search=tuple(message.dns_search),
            options=tuple(message.dns_options),
            extra_hosts=tuple((entry.name, entry.address) for entry in message.extra_hosts),
        ),
        log=LogLimits(max_size=message.log_max_size, max_files=message.log_max_files),
        runtime=message.runtime,
        annotations=dict(message.annotations),
    )
    if mode is None:
        rule = f"{message.network_mode} is no network mode; give BRIDGE, HOST or NONE"
        raise InvalidArgument(violations=[Violation(field="spec.network_mode", description=rule), *violations(spec)])
    return spec


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
        case Exited() as event:
            message.exited.start_id = event.start_id
            message.exited.oom_killed = event.oom_killed
            message.exited.error = event.error
            if event.exit_code is not None:
                message.exited.exit_code = event.exit_code
        case Signaled() as event:
            message.signaled.signal = event.signal
    return message


def _started(event: Started) -> runtime_service_pb2.Started:
    return runtime_service_pb2.Started(
        start_id=event.start_id,
        pid=event.pid,
        sandbox_id=event.sandbox_id,
        netns_path=event.netns_path,
        endpoint=_endpoint(event.endpoint) if event.endpoint else None,
    )


def _endpoint(endpoint: Endpoint) -> runtime_service_pb2.Endpoint:
    return runtime_service_pb2.Endpoint(
        network=endpoint.network,
        interface=endpoint.interface,
        mac_address=endpoint.mac_address,
        ipv4_address=endpoint.ipv4_address,
        ipv4_prefix_length=endpoint.ipv4_prefix_length,
        ipv4_gateway=endpoint.ipv4_gateway,
        ipv6_address=endpoint.ipv6_address,
        ipv6_prefix_length=endpoint.ipv6_prefix_length,
        ipv6_gateway=endpoint.ipv6_gateway,
    )


def snapshot_to_proto(snapshot: NodeSnapshot) -> runtime_service_pb2.ListContainersResponse:
    return runtime_service_pb2.ListContainersResponse(
        containers=[_container(record) for record in snapshot.records],
        journal_id=snapshot.journal_id,
        sequence=snapshot.sequence,
    )


def _container(record: ContainerRecord) -> runtime_service_pb2.ContainerSnapshot:
    return runtime_service_pb2.ContainerSnapshot(
        container_id=record.id,
        phase=_PHASES[record.phase],
        started=entry_to_proto(record.started) if record.started else None,
        last=entry_to_proto(record.last) if record.last else None,
        error=record.error,
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


def log_record_to_proto(record: LogRecord) -> runtime_service_pb2.ReadLogsResponse:
    return runtime_service_pb2.ReadLogsResponse(
        stream=_STREAMS[record.stream], timestamp=_timestamp(record.timestamp), data=record.data
    )


def image_to_proto(image: Image) -> image_store_service_pb2.StoredImage:
    return image_store_service_pb2.StoredImage(
        id=image.id, config=image.config, layers=image.layers, size=image.size, names=image.names
    )


def node_to_proto(node: NodeDescription) -> node_service_pb2.GetNodeResponse:
    return node_service_pb2.GetNodeResponse(
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
    )


def disk_usage_to_proto(usage: DiskUsage) -> node_service_pb2.GetDiskUsageResponse:
    return node_service_pb2.GetDiskUsageResponse(
        images_size=usage.images, containers_size=usage.containers, logs_size=usage.logs
    )


def _timestamp(nanoseconds: int) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromNanoseconds(nanoseconds)
    return timestamp


def _nanoseconds(timestamp: Timestamp) -> int:
    # Not ToNanoseconds(): it refuses times that a client may well send.
    return timestamp.seconds * 1_000_000_000 + timestamp.nanos
