"""The gRPC server: the services, health, reflection, and the addresses it listens on."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from slipway.v1 import (
    container_service_pb2,
    container_service_pb2_grpc,
    exec_service_pb2,
    exec_service_pb2_grpc,
    image_service_pb2,
    image_service_pb2_grpc,
    network_service_pb2,
    network_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    system_service_pb2,
    system_service_pb2_grpc,
    volume_service_pb2,
    volume_service_pb2_grpc,
)

from api_service.fresh_reads import FreshReads
from api_service.operations.engine import Engine
from api_service.servicers.container_servicer import ContainerServicer
from api_service.servicers.exec_servicer import ExecServicer
from api_service.servicers.image_servicer import ImageServicer
from api_service.servicers.long_calls import LongCalls
from api_service.servicers.network_servicer import NetworkServicer
from api_service.servicers.node_servicer import NodeServicer
from api_service.servicers.system_servicer import SystemServicer
from api_service.servicers.volume_servicer import VolumeServicer
from common.callers import Callers
from common.errors import FailedPrecondition
from common.interceptor import CallInterceptor
from common.request_rules import RequestRules
from common.tls import TlsSource, server_credentials

_MAX_MESSAGE = 8 * 1024 * 1024  # bytes; a chunk of an archive has at most 4 MiB
_OPTIONS = (
    # Without this two services could share a port, each getting some of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    # A client that only waits may ask every five seconds whether the service is still there; by default it would be
    # sent away for it. One that has vanished without a word is noticed within two minutes, and its calls end.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
_SERVICES = tuple(
    service.full_name
    for module in (
        container_service_pb2,
        exec_service_pb2,
        image_service_pb2,
        network_service_pb2,
        node_service_pb2,
        system_service_pb2,
        volume_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)


def request_rules() -> RequestRules:
    """The protocol's rules. Those of a create are told together with the operation's."""
    return RequestRules(deferred=[container_service_pb2.CreateContainerRequest])


@asynccontextmanager
async def serve(
    engine: Engine,
    rules: RequestRules,
    addresses: Sequence[str],
    *,
    grace: float,
    max_calls: int,
    tls: TlsSource | None = None,
) -> AsyncIterator[None]:
    """Serve until the block ends; calls under way then get `grace` seconds. With `tls` TCP addresses speak it. Raises
    FailedPrecondition (reason `ADDRESS_IN_USE`) and InvalidArgument for an address that cannot be had."""
    long_calls = LongCalls()
    server = grpc.aio.server(
        interceptors=[
            CallInterceptor(rules, Callers(tls, most=max(max_calls // 2, 1)) if tls is not None else None),
            FreshReads(engine.catch_up),
        ],
        options=_OPTIONS,
        maximum_concurrent_rpcs=max_calls,
    )
    container_service_pb2_grpc.add_ContainerServiceServicer_to_server(
        ContainerServicer(engine, rules, long_calls), server
    )
    exec_service_pb2_grpc.add_ExecServiceServicer_to_server(ExecServicer(engine, long_calls), server)
    image_service_pb2_grpc.add_ImageServiceServicer_to_server(ImageServicer(engine), server)
    network_service_pb2_grpc.add_NetworkServiceServicer_to_server(NetworkServicer(engine), server)
    node_service_pb2_grpc.add_NodeServiceServicer_to_server(NodeServicer(engine), server)
    volume_service_pb2_grpc.add_VolumeServiceServicer_to_server(VolumeServicer(engine), server)
    system_service_pb2_grpc.add_SystemServiceServicer_to_server(SystemServicer(engine, long_calls), server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ("", *_SERVICES):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    for address in addresses:
        _listen(server, address, tls)
    await server.start()
    try:
        yield
    finally:
        await checks.enter_graceful_shutdown()
        await stop(server, long_calls, grace=grace)


async def stop(server: grpc.aio.Server, long_calls: LongCalls, *, grace: float) -> None:
    """End the long calls, and give the others the rest of `grace` seconds.

    In this order: a server that stops closes a connection with its last call, and a client that is then still reading
    loses what is under way to it, the status too. One without calls it closes when the client has read everything."""
    began = asyncio.get_running_loop().time()
    await long_calls.end(timeout=grace)
    await server.stop(max(0.0, began + grace - asyncio.get_running_loop().time()))


def _listen(server: grpc.aio.Server, address: str, tls: TlsSource | None) -> None:
    # A socket's path may be a link to the place where this service may make it: bind(2) does not follow links.
    path = Path(address.removeprefix("unix://")).resolve() if address.startswith("unix:") else None
    if path is not None:
        _refuse_served(path, address)
    try:
        if tls is not None and path is None:
            server.add_secure_port(address, server_credentials(tls))
        else:
            server.add_insecure_port(f"unix://{path}" if path is not None else address)
    except RuntimeError as error:
        why = "another program may be listening there, or it is not an address of this machine"
        raise FailedPrecondition(
            f"cannot listen on {address}: {why}; choose another with --listen", reason="ADDRESS_IN_USE"
        ) from error
    if path is not None:
        # Whoever may connect may do everything; the directory's permissions let its group's members get here.
        path.chmod(0o660)


def _refuse_served(path: Path, address: str) -> None:
    """gRPC replaces a socket that is there, also one that somebody serves."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        refused = probe.connect_ex(str(path))
    if refused not in (errno.ENOENT, errno.ECONNREFUSED):
        raise FailedPrecondition(
            f"cannot listen on {address}: another program serves it; stop that, or choose another with --listen",
            reason="ADDRESS_IN_USE",
        )
