"""The journal's entries."""

from __future__ import annotations

from slipway.executor.v1 import container_spec_pb2 as spec_pb2
from slipway.executor.v1 import runtime_service_pb2 as pb2

from executor_service.container import EndpointSpec
from executor_service.conversion.times import timestamp
from executor_service.health import HealthStatus
from executor_service.journal_entries import (
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
from executor_service.network.sandbox import Endpoint
from executor_service.ports import BoundPort, PortProtocol

_HEALTH_STATUSES = {
    HealthStatus.STARTING: pb2.HEALTH_STATUS_STARTING,
    HealthStatus.HEALTHY: pb2.HEALTH_STATUS_HEALTHY,
    HealthStatus.UNHEALTHY: pb2.HEALTH_STATUS_UNHEALTHY,
}
_PROTOCOLS = {
    PortProtocol.TCP: spec_pb2.PORT_PROTOCOL_TCP,
    PortProtocol.UDP: spec_pb2.PORT_PROTOCOL_UDP,
    PortProtocol.SCTP: spec_pb2.PORT_PROTOCOL_SCTP,
}


def entry_to_proto(entry: JournalEntry, *, journal_id: str) -> pb2.JournalEntry:
    message = pb2.JournalEntry(
        journal_id=journal_id,
        sequence=entry.sequence,
        time=timestamp(entry.time),
        container_id=entry.container_id,
    )
    match entry.event:
        case Started() as event:
            message.started.CopyFrom(_started(event))
        case StartFailure() as event:
            message.start_failed.CopyFrom(_start_failed(event))
        case Exited() as event:
            message.exited.CopyFrom(_exited(event))
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
            message.health_changed.CopyFrom(health_to_proto(event))
        case NetworkConnected() as event:
            message.network_connected.CopyFrom(_network_connected(event))
        case NetworkDisconnected() as event:
            message.network_disconnected.CopyFrom(_network_disconnected(event))
        case ExecExited() as event:
            message.exec_exited.CopyFrom(_exec_exited(event))
    return message


def health_to_proto(event: HealthChanged) -> pb2.HealthChanged:
    return pb2.HealthChanged(
        status=_HEALTH_STATUSES[event.status],
        failing_streak=event.failing_streak,
        log=[
            pb2.ProbeResult(
                started_at=timestamp(probe.started_at),
                ended_at=timestamp(probe.ended_at),
                exit_code=probe.exit_code,
                output=probe.output,
            )
            for probe in event.log
        ],
    )


def _started(event: Started) -> pb2.Started:
    return pb2.Started(
        start_id=event.start_id,
        pid=event.pid,
        sandbox_id=event.sandbox_id,
        netns_path=event.netns_path,
        endpoints=[_endpoint(endpoint) for endpoint in event.endpoints],
        restart_count=event.restart_count,
        ports=[_bound_port(port) for port in event.ports],
    )


def _start_failed(event: StartFailure) -> pb2.StartFailed:
    return pb2.StartFailed(
        start_id=event.start_id,
        exit_code=event.exit_code,
        message=event.message,
        reason=event.reason,
        next_start=timestamp(event.next_start) if event.next_start is not None else None,
    )


def _exited(event: Exited) -> pb2.Exited:
    return pb2.Exited(
        start_id=event.start_id,
        exit_code=event.exit_code,
        oom_killed=event.oom_killed,
        error=event.error,
        next_start=timestamp(event.next_start) if event.next_start is not None else None,
        lease_over=event.lease_over,
    )


def _exec_exited(event: ExecExited) -> pb2.ExecExited:
    return pb2.ExecExited(exec_id=event.exec_id, exit_code=event.exit_code, error=event.error)


def _network_connected(event: NetworkConnected) -> pb2.NetworkConnected:
    return pb2.NetworkConnected(
        spec=_endpoint_spec(event.spec),
        network_name=event.network_name,
        endpoints=map(_endpoint, event.endpoints),
        ports=map(_bound_port, event.ports),
    )


def _network_disconnected(event: NetworkDisconnected) -> pb2.NetworkDisconnected:
    return pb2.NetworkDisconnected(
        network_id=event.network_id,
        network_name=event.network_name,
        endpoints=map(_endpoint, event.endpoints),
        ports=map(_bound_port, event.ports),
    )


def _bound_port(port: BoundPort) -> pb2.BoundPort:
    return pb2.BoundPort(
        host_ip=port.host_ip,
        host_port=port.host_port,
        container_port=port.container_port,
        protocol=_PROTOCOLS[port.protocol],
    )


def _endpoint_spec(spec: EndpointSpec) -> spec_pb2.EndpointSpec:
    return spec_pb2.EndpointSpec(
        network_id=spec.network_id,
        mac_address=spec.mac_address,
        ipv4_address=spec.ipv4_address,
        ipv6_address=spec.ipv6_address,
        dns_names=spec.dns_names,
        gateway_priority=spec.gateway_priority,
    )


def _endpoint(endpoint: Endpoint) -> pb2.Endpoint:
    return pb2.Endpoint(
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
