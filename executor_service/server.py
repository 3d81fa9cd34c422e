"""The gRPC server before an executor."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection
from slipway.executor.v1 import file_service_pb2 as file_pb
from slipway.executor.v1 import file_service_pb2_grpc as file_grpc
from slipway.executor.v1 import image_store_service_pb2 as image_store_pb
from slipway.executor.v1 import image_store_service_pb2_grpc as image_store_grpc
from slipway.executor.v1 import network_store_service_pb2 as network_store_pb
from slipway.executor.v1 import network_store_service_pb2_grpc as network_store_grpc
from slipway.executor.v1 import node_service_pb2 as node_pb
from slipway.executor.v1 import node_service_pb2_grpc as node_grpc
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb
from slipway.executor.v1 import runtime_service_pb2_grpc as runtime_grpc
from slipway.executor.v1 import volume_store_service_pb2 as volume_store_pb
from slipway.executor.v1 import volume_store_service_pb2_grpc as volume_store_grpc

from common.addresses import is_unix
from common.call_terms import TermsInterceptor
from common.callers import Callers
from common.errors import FailedPrecondition, Unavailable
from common.interceptor import CallInterceptor
from common.tls import TlsSource, server_credentials
from executor_service.executor import Executor
from executor_service.servicers.file import FileServicer
from executor_service.servicers.image_store import ImageStoreServicer
from executor_service.servicers.network_store import NetworkStoreServicer
from executor_service.servicers.node import NodeServicer
from executor_service.servicers.runtime import RuntimeServicer
from executor_service.servicers.volume_store import VolumeStoreServicer

_log = structlog.get_logger(__name__)

_MAX_MESSAGE = 16 * 1024 * 1024  # bytes; a list of a few thousand containers with their entries is some of them
_MAX_CALLS = 4096
_FLUSH = 1.0  # seconds for answers to leave after the last operation
_OPTIONS = (
    # Without this two executors could share a port, each getting some of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    # Clients ping a silent stream to see whether we live; less often than this is nobody's business.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_SERVICES = (
    runtime_pb.DESCRIPTOR.services_by_name["RuntimeService"].full_name,
    image_store_pb.DESCRIPTOR.services_by_name["ImageStoreService"].full_name,
    node_pb.DESCRIPTOR.services_by_name["NodeService"].full_name,
    volume_store_pb.DESCRIPTOR.services_by_name["VolumeStoreService"].full_name,
    network_store_pb.DESCRIPTOR.services_by_name["NetworkStoreService"].full_name,
    file_pb.DESCRIPTOR.services_by_name["FileService"].full_name,
)


@asynccontextmanager
async def serving(
    executor: Executor,
    *,
    socket: Path,
    socket_gid: int,
    more: Sequence[str] = (),
    tls: TlsSource | None = None,
    grace: float = 20.0,
) -> AsyncIterator[None]:
    """Serve on the unix socket, which `socket_gid` may connect to, and on `more` addresses (`unix:///path`; `host:port`
    with `tls`), while the block runs. Afterwards operations get `grace` seconds to end."""
    server = grpc.aio.server(
        interceptors=[
            CallInterceptor(callers=Callers(tls) if tls is not None else None),
            TermsInterceptor(executor.node.journal.node_id),
        ],
        maximum_concurrent_rpcs=_MAX_CALLS,
        options=_OPTIONS,
    )
    _add_services(server, executor)
    health = HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (*_SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    for address in (f"unix://{socket}", *more):
        if is_unix(address):
            _listen_locally(server, address, gid=socket_gid)
        elif tls is not None:
            _listen(server, address, tls)
    await server.start()
    for name in ("", *_SERVICES):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    _log.info("serving", socket=str(socket), more=more)
    try:
        yield
    finally:
        await health.enter_graceful_shutdown()
        executor.node.journal.close()
        executor.node.attachments.close()
        await executor.operations.drain(timeout=grace)
        await asyncio.shield(server.stop(_FLUSH))


def _add_services(server: grpc.aio.Server, executor: Executor) -> None:
    node, operations = executor.node, executor.operations
    runtime_grpc.add_RuntimeServiceServicer_to_server(RuntimeServicer(node, operations), server)
    image_store_grpc.add_ImageStoreServiceServicer_to_server(ImageStoreServicer(node, operations), server)
    volume_store_grpc.add_VolumeStoreServiceServicer_to_server(VolumeStoreServicer(node, operations), server)
    network_store_grpc.add_NetworkStoreServiceServicer_to_server(NetworkStoreServicer(node, operations), server)
    node_grpc.add_NodeServiceServicer_to_server(NodeServicer(node, executor.facts), server)
    file_grpc.add_FileServiceServicer_to_server(FileServicer(node, operations), server)


def _listen_locally(server: grpc.aio.Server, address: str, *, gid: int) -> None:
    """Bind the socket so that nobody but root can connect before its group is set."""
    path = Path(address.removeprefix("unix://"))
    before = os.umask(0o177)
    try:
        bound = server.add_insecure_port(address)
    finally:
        os.umask(before)
    if not bound:
        raise Unavailable(f"{address}: cannot listen there")
    os.chown(path, -1, gid)
    path.chmod(0o660)


def _listen(server: grpc.aio.Server, address: str, tls: TlsSource) -> None:
    try:
        server.add_secure_port(address, server_credentials(tls))
    except RuntimeError as error:
        raise FailedPrecondition(
            f"cannot listen on {address}: another program may, or it is not an address of this machine; choose another "
            "with --listen",
            reason="ADDRESS_IN_USE",
        ) from error
