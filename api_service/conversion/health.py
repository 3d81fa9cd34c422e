"""Between the messages about health checks and the records."""

from __future__ import annotations

from slipway.v1 import health_pb2 as pb2

from api_service.conversion.times import duration, nanoseconds
from api_service.records.health import GrpcProbe, HealthConfig, HttpProbe, TcpProbe


def health_config_from_proto(message: pb2.HealthConfig) -> HealthConfig:
    http = message.http
    return HealthConfig(
        test=tuple(message.test),
        http=HttpProbe(port=http.port, path=http.path, headers=dict(http.headers))
        if message.HasField("http")
        else None,
        tcp=TcpProbe(port=message.tcp.port) if message.HasField("tcp") else None,
        grpc=GrpcProbe(port=message.grpc.port, service=message.grpc.service) if message.HasField("grpc") else None,
        interval=nanoseconds(message.interval),
        timeout=nanoseconds(message.timeout),
        start_period=nanoseconds(message.start_period),
        start_interval=nanoseconds(message.start_interval),
        retries=message.retries,
    )


def health_config_to_proto(health: HealthConfig) -> pb2.HealthConfig:
    message = pb2.HealthConfig(
        test=health.test,
        interval=duration(health.interval),
        timeout=duration(health.timeout),
        start_period=duration(health.start_period),
        start_interval=duration(health.start_interval),
        retries=health.retries,
    )
    if (http := health.http) is not None:
        message.http.CopyFrom(pb2.HttpProbe(port=http.port, path=http.path, headers=dict(http.headers)))
    if health.tcp is not None:
        message.tcp.port = health.tcp.port
    if health.grpc is not None:
        message.grpc.CopyFrom(pb2.GrpcProbe(port=health.grpc.port, service=health.grpc.service))
    return message
