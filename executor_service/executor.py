"""The executor over its seams, whatever they are: records, supervision, operations, and the gRPC server before them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
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

from common.addressee import AddresseeInterceptor
from common.addresses import is_unix
from common.callers import Callers
from common.errors import FailedPrecondition, Unavailable
from common.interceptor import CallInterceptor
from common.tls import TlsSource, server_credentials
from executor_service.attachments import Attachments
from executor_service.cleanup import Cleanup
from executor_service.container_locks import ContainerLocks
from executor_service.execs import Execs
from executor_service.files.threads import CopyThreads
from executor_service.journal import DEFAULT_RETENTION, Journal
from executor_service.lease import Lease
from executor_service.logs.rotation import LogRotator
from executor_service.logs.watch import LogWatcher
from executor_service.node import Node
from executor_service.oci.exec_process import process_in
from executor_service.oci.exec_runtime import ExecRuntime
from executor_service.operations.container_lease import lease_ready
from executor_service.operations.container_restart import container_restart
from executor_service.operations.container_stop import stop_unhealthy
from executor_service.operations.dependency_wait import dependencies_ready
from executor_service.operations.exec_target import exec_target
from executor_service.operations.node_inspect import NodeFacts
from executor_service.paths import Paths
from executor_service.records import ContainerRecords
from executor_service.resource_use import ResourceUse, images_of, networks_of, volumes_of
from executor_service.seams import Seams, TimeLimits
from executor_service.servicers.file import FileServicer
from executor_service.servicers.image_store import ImageStoreServicer
from executor_service.servicers.network_store import NetworkStoreServicer
from executor_service.servicers.node import NodeServicer
from executor_service.servicers.runtime import RuntimeServicer
from executor_service.servicers.volume_store import VolumeStoreServicer
from executor_service.supervision.adoption import adopt
from executor_service.supervision.health_monitors import HealthMonitors
from executor_service.supervision.probes import MAX_OUTPUT, Prober, ProbeTarget
from executor_service.supervision.restarts import Restarts
from executor_service.supervision.supervisor import Supervisor
from executor_service.tasks import Operations

_log = structlog.get_logger(__name__)

_MAX_MESSAGE = 16 * 1024 * 1024  # bytes; a list of a few thousand containers with their entries is some of them
_MAX_CALLS = 4096
_FLUSH = 1.0  # seconds for answers to leave after the last operation
_SERVICES = (
    runtime_pb.DESCRIPTOR.services_by_name["RuntimeService"].full_name,
    image_store_pb.DESCRIPTOR.services_by_name["ImageStoreService"].full_name,
    node_pb.DESCRIPTOR.services_by_name["NodeService"].full_name,
    volume_store_pb.DESCRIPTOR.services_by_name["VolumeStoreService"].full_name,
    network_store_pb.DESCRIPTOR.services_by_name["NetworkStoreService"].full_name,
    file_pb.DESCRIPTOR.services_by_name["FileService"].full_name,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    node: Node
    operations: Operations
    facts: NodeFacts


@asynccontextmanager
async def open_executor(
    seams: Seams,
    *,
    paths: Paths,
    facts: NodeFacts,
    boot_id: str,
    limits: TimeLimits | None = None,
    retention: int = DEFAULT_RETENTION,
    grace: float = 20.0,  # seconds
) -> AsyncIterator[Executor]:
    """Take over what runs on the node. Leaving waits `grace` for what is under way; the containers go on running."""
    limits = limits or TimeLimits()
    journal = Journal(seams.database, retention=retention)
    await journal.load()
    records = ContainerRecords(seams.database, journal)
    await records.load()
    locks = ContainerLocks(timeout=limits.lock)
    lease = await Lease.open(paths.lease, boot_id=boot_id)
    cleanup = Cleanup(paths=paths, seams=seams, lease=lease, limits=limits, runtimes=facts.runtimes)
    operations = Operations()

    async def ready(container_id: str, _: int) -> None:
        await lease_ready(node, container_id)
        await dependencies_ready(node, container_id)

    async def restart(container_id: str, next_start: int) -> None:
        await container_restart(node, container_id, next_start)

    def unhealthy(container_id: str, start_id: str) -> None:
        operations.start(stop_unhealthy(node, container_id, start_id))

    async with (
        LogRotator.open() as rotator,
        LogWatcher.open() as log_watcher,
        Restarts(ready=ready, start=restart) as restarts,
        HealthMonitors(
            records=records, journal=journal, prober=_prober(paths, seams.execs), on_unhealthy=unhealthy
        ) as monitors,
        CopyThreads.open() as copies,
        Execs.open(records=records, runtime=seams.execs) as execs,
        Supervisor(
            paths=paths,
            records=records,
            runtime=seams.runtime,
            cleanup=cleanup,
            lease=lease,
            locks=locks,
            rotator=rotator,
            restarts=restarts,
            monitors=monitors,
        ) as supervisor,
    ):
        node = Node(
            paths=paths,
            limits=limits,
            boot_id=boot_id,
            runtimes=facts.runtimes,
            cgroup_features=facts.cgroups.names,
            user_mapping=facts.user_mapping,
            seams=seams,
            journal=journal,
            records=records,
            locks=locks,
            image_use=ResourceUse(records, "image", images_of),
            volume_use=ResourceUse(records, "volume", volumes_of),
            network_use=ResourceUse(records, "network", networks_of),
            lease=lease,
            cleanup=cleanup,
            supervisor=supervisor,
            restarts=restarts,
            log_watcher=log_watcher,
            copies=copies,
            execs=execs,
            attachments=Attachments(),
        )
        try:
            await adopt(node, operations)
            yield Executor(node=node, operations=operations, facts=facts)
        finally:
            journal.close()
            node.attachments.close()
            await operations.drain(timeout=grace)


def _prober(paths: Paths, execs: ExecRuntime) -> Prober:
    async def run_program(target: ProbeTarget, args: tuple[str, ...], timeout: float) -> tuple[int | None, bytes]:
        where = exec_target(paths, target.spec, target.run)
        outcome = await execs.run_probe(where, process_in(target.spec, args), timeout=timeout, max_output=MAX_OUTPUT)
        return outcome.exit_code, outcome.output

    return Prober(sockets=paths.run / "probes", run_program=run_program)


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
            AddresseeInterceptor(executor.node.journal.node_id),
        ],
        maximum_concurrent_rpcs=_MAX_CALLS,
        options=[
            # Without this two executors could share a port, each getting some of the calls.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.max_send_message_length", _MAX_MESSAGE),
            # Clients ping a silent stream to see whether we live; less often than this is nobody's business.
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ],
    )
    health = HealthServicer()
    runtime_grpc.add_RuntimeServiceServicer_to_server(RuntimeServicer(executor.node, executor.operations), server)
    image_store_grpc.add_ImageStoreServiceServicer_to_server(
        ImageStoreServicer(executor.node, executor.operations), server
    )
    volume_store_grpc.add_VolumeStoreServiceServicer_to_server(
        VolumeStoreServicer(executor.node, executor.operations), server
    )
    network_store_grpc.add_NetworkStoreServiceServicer_to_server(
        NetworkStoreServicer(executor.node, executor.operations), server
    )
    node_grpc.add_NodeServiceServicer_to_server(NodeServicer(executor.node, executor.facts), server)
    file_grpc.add_FileServiceServicer_to_server(FileServicer(executor.node, executor.operations), server)
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
