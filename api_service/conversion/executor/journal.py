"""The journal's entries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from slipway.executor.v1 import container_spec_pb2 as spec_pb2
from slipway.executor.v1 import runtime_service_pb2 as pb2

from api_service.executor_client.container_spec import EndpointSpec
from api_service.executor_client.journal import (
    Endpoint,
    Event,
    ExecExited,
    Exited,
    HealthChanged,
    JournalAnswer,
    JournalEntry,
    NetworkConnected,
    NetworkDisconnected,
    Paused,
    RestartCancelled,
    Signaled,
    Started,
    StartRefused,
    Unpaused,
    Updated,
)
from api_service.records.container import BoundPort
from api_service.records.health import Health, HealthStatus, ProbeResult
from api_service.records.network import BRIDGE_DRIVER
from common.errors import Internal

_HEALTH_STATUSES = {
    pb2.HEALTH_STATUS_STARTING: HealthStatus.STARTING,
    pb2.HEALTH_STATUS_HEALTHY: HealthStatus.HEALTHY,
    pb2.HEALTH_STATUS_UNHEALTHY: HealthStatus.UNHEALTHY,
}
_PROTOCOLS = {
    spec_pb2.PORT_PROTOCOL_TCP: "tcp",
    spec_pb2.PORT_PROTOCOL_UDP: "udp",
    spec_pb2.PORT_PROTOCOL_SCTP: "sctp",
}


def answer_from_proto(message: pb2.FollowJournalResponse) -> JournalAnswer:
    """What a newer executor tells and this version does not know is left out; the entries after it are not."""
    if not message.HasField("entry") or message.entry.WhichOneof("event") is None:
        return JournalAnswer(journal_id=message.journal_id, entry=None)
    entry = dataclasses.replace(entry_from_proto(message.entry), journal_id=message.journal_id)
    return JournalAnswer(journal_id=message.journal_id, entry=entry)


def entry_from_proto(message: pb2.JournalEntry) -> JournalEntry:
    """Raises Internal for an event this version does not know."""
    return JournalEntry(
        journal_id=message.journal_id,
        sequence=message.sequence,
        time=message.time.ToNanoseconds(),
        container_id=message.container_id,
        event=_event_from_proto(message),
    )


def _event_from_proto(message: pb2.JournalEntry) -> Event:
    match message.WhichOneof("event"):
        case "started":
            return _started(message.started)
        case "start_failed":
            return _start_refused(message.start_failed)
        case "exited":
            return _exited(message.exited)
        case "signaled":
            return Signaled(signal=message.signaled.signal)
        case "paused":
            return Paused()
        case "unpaused":
            return Unpaused()
        case "restart_cancelled":
            return RestartCancelled()
        case "updated":
            changed = message.updated.HasField("published")
            return Updated(ports=_bound_ports(message.updated.published.ports) if changed else None)
        case "health_changed":
            return HealthChanged(health=health_from_proto(message.health_changed))
        case "network_connected":
            return _network_connected(message.network_connected)
        case "network_disconnected":
            return _network_disconnected(message.network_disconnected)
        case "exec_exited":
            return _exec_exited(message.exec_exited)
        case _:
            raise Internal(f"journal entry {message.sequence} tells of something this version does not know")


def _started(message: pb2.Started) -> Started:
    return Started(
        start_id=message.start_id,
        pid=message.pid,
        sandbox_id=message.sandbox_id,
        netns_path=message.netns_path,
        endpoints=_endpoints(message.endpoints),
        restart_count=message.restart_count,
        ports=_bound_ports(message.ports),
    )


def _start_refused(message: pb2.StartFailed) -> StartRefused:
    return StartRefused(
        start_id=message.start_id,
        exit_code=message.exit_code,
        message=message.message,
        reason=message.reason,
        next_start=message.next_start.ToNanoseconds() if message.HasField("next_start") else None,
    )


def _exited(message: pb2.Exited) -> Exited:
    return Exited(
        start_id=message.start_id,
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        oom_killed=message.oom_killed,
        error=message.error,
        next_start=message.next_start.ToNanoseconds() if message.HasField("next_start") else None,
        lease_over=message.lease_over,
    )


def _exec_exited(message: pb2.ExecExited) -> ExecExited:
    exit_code = message.exit_code if message.HasField("exit_code") else None
    return ExecExited(exec_id=message.exec_id, exit_code=exit_code, error=message.error)


def _network_connected(message: pb2.NetworkConnected) -> NetworkConnected:
    return NetworkConnected(
        spec=_endpoint_spec_from_proto(message.spec),
        network_name=message.network_name,
        endpoints=_endpoints(message.endpoints),
        ports=_bound_ports(message.ports),
    )


def _network_disconnected(message: pb2.NetworkDisconnected) -> NetworkDisconnected:
    return NetworkDisconnected(
        network_id=message.network_id,
        network_name=message.network_name,
        endpoints=_endpoints(message.endpoints),
        ports=_bound_ports(message.ports),
    )


def health_from_proto(message: pb2.HealthChanged) -> Health:
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


def _endpoints(messages: Iterable[pb2.Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(_endpoint_from_proto(message) for message in messages)


def _endpoint_from_proto(message: pb2.Endpoint) -> Endpoint:
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


def _bound_ports(messages: Iterable[pb2.BoundPort]) -> tuple[BoundPort, ...]:
    return tuple(
        BoundPort(
            host_ip=port.host_ip,
            host_port=port.host_port,
            container_port=port.container_port,
            protocol=_PROTOCOLS.get(port.protocol, "tcp"),
        )
        for port in messages
    )
