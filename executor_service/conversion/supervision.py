"""Restart policies, health checks and dependencies of a specification."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from slipway.executor.v1 import container_spec_pb2 as pb2

from executor_service.health import ExecProbe, GrpcProbe, HealthCheck, HttpProbe, Probe, TcpProbe
from executor_service.restart import Dependency, DependencyCondition, RestartCondition, RestartPolicy

RESTART_CONDITIONS = {
    pb2.RESTART_CONDITION_UNSPECIFIED: RestartCondition.NEVER,
    pb2.RESTART_CONDITION_ALWAYS: RestartCondition.ALWAYS,
    pb2.RESTART_CONDITION_UNLESS_STOPPED: RestartCondition.UNLESS_STOPPED,
    pb2.RESTART_CONDITION_ON_FAILURE: RestartCondition.ON_FAILURE,
}
DEPENDENCY_CONDITIONS = {
    pb2.DEPENDENCY_CONDITION_STARTED: DependencyCondition.STARTED,
    pb2.DEPENDENCY_CONDITION_HEALTHY: DependencyCondition.HEALTHY,
    pb2.DEPENDENCY_CONDITION_COMPLETED: DependencyCondition.COMPLETED,
}


def restart_policy_from_proto(message: pb2.RestartPolicy) -> RestartPolicy:
    return RestartPolicy(
        condition=RESTART_CONDITIONS.get(message.condition, RestartCondition.NEVER),
        maximum_retry_count=message.maximum_retry_count,
        on_unhealthy=message.on_unhealthy,
        initial_delay=_seconds(message.initial_delay),
        max_delay=_seconds(message.max_delay),
        multiplier=message.multiplier,
        reset_after=_seconds(message.reset_after),
    )


def health_check_from_proto(message: pb2.HealthCheck) -> HealthCheck:
    return HealthCheck(
        probe=_probe(message),
        interval=_seconds(message.interval),
        timeout=_seconds(message.timeout),
        start_period=_seconds(message.start_period),
        start_interval=_seconds(message.start_interval),
        retries=message.retries,
    )


def _probe(message: pb2.HealthCheck) -> Probe:
    match message.WhichOneof("probe"):
        case "http":
            return HttpProbe(port=message.http.port, path=message.http.path, headers=dict(message.http.headers))
        case "tcp":
            return TcpProbe(port=message.tcp.port)
        case "grpc":
            return GrpcProbe(port=message.grpc.port, service=message.grpc.service)
        case _:
            return ExecProbe(args=tuple(message.exec.args))


def dependency_from_proto(message: pb2.Dependency) -> Dependency:
    return Dependency(
        container_id=message.container_id,
        condition=DEPENDENCY_CONDITIONS.get(message.condition, DependencyCondition.STARTED),
        timeout=_seconds(message.timeout),
    )


def _seconds(message: Duration) -> float:
    # Not ToTimedelta(): it refuses lengths that a client may well send.
    return message.seconds + message.nanos / 1e9
