"""Who may call, over real connections: certificates of every bad kind, roles, and what changes while calls run."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health, health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from slipway.executor.v1 import node_service_pb2 as node_pb
from slipway.executor.v1 import node_service_pb2_grpc as node_rpc
from slipway.v1 import system_service_pb2 as pb
from slipway.v1 import system_service_pb2_grpc as rpc
from structlog.testing import capture_logs

from common import tls
from common.callers import Callers
from common.certificate_authority import Certified, make_authority
from common.identity import Role
from common.interceptor import CallInterceptor
from common.tls import TlsSource, server_credentials
from tests.fixtures.api import refused
from tests.fixtures.certificates import Authority, replace

HOUR = timedelta(hours=1)


class _System(rpc.SystemServiceServicer):
    async def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.GetVersionResponse:
        return pb.GetVersionResponse()

    async def GetInfo(self, request: pb.GetInfoRequest, context: Any) -> pb.GetInfoResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async def StreamEvents(
        self, request: pb.StreamEventsRequest, context: Any
    ) -> AsyncIterator[pb.StreamEventsResponse]:
        yield pb.StreamEventsResponse(cursor="1")
        await asyncio.Event().wait()

    async def GetDiskUsage(self, request: pb.GetDiskUsageRequest, context: Any) -> pb.GetDiskUsageResponse:
        return pb.GetDiskUsageResponse()


class _Node(node_rpc.NodeServiceServicer):
    async def GetNode(self, request: node_pb.GetNodeRequest, context: Any) -> node_pb.GetNodeResponse:
        return node_pb.GetNodeResponse(node_id="x")

    async def GetDiskUsage(self, request: node_pb.GetDiskUsageRequest, context: Any) -> node_pb.GetDiskUsageResponse:
        return node_pb.GetDiskUsageResponse()

    async def RenewLease(self, request: node_pb.RenewLeaseRequest, context: Any) -> node_pb.RenewLeaseResponse:
        return node_pb.RenewLeaseResponse()


class Served:
    """A server with TLS on a port and a unix socket, and an authority it trusts."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority(directory)
        self.files = self.authority.files(self.authority.certify(Role.API), directory="server")
        self.source = TlsSource(self.files)
        self.server = grpc.aio.server(
            interceptors=[CallInterceptor(callers=Callers(self.source, look_every=0.02, most=10))]
        )
        rpc.add_SystemServiceServicer_to_server(_System(), self.server)
        node_rpc.add_NodeServiceServicer_to_server(_Node(), self.server)
        add_HealthServicer_to_server(health.aio.HealthServicer(), self.server)
        port = self.server.add_secure_port("127.0.0.1:0", server_credentials(self.source))
        self.address = f"127.0.0.1:{port}"
        self.socket = f"unix://{directory}/local.sock"
        self.server.add_insecure_port(self.socket)
        self.stack = AsyncExitStack()

    async def channel(self, certified: Certified, *, authority: Authority | None = None) -> grpc.aio.Channel:
        channel = (authority or self.authority).channel(certified, self.address)
        return await self.stack.enter_async_context(channel)

    async def system(self, role: Role, name: str = "ann", **options: Any) -> rpc.SystemServiceStub:
        return rpc.SystemServiceStub(await self.channel(self.authority.certify(role, name, hosts=(), **options)))


@pytest.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setattr(tls, "_LOOK_EVERY", 0.0)
    served = Served(tmp_path)
    async with served.stack:
        await served.server.start()
        yield served
    await served.server.stop(0)


async def _version(stub: rpc.SystemServiceStub) -> None:
    await stub.GetVersion(pb.GetVersionRequest(), timeout=60)


@pytest.mark.parametrize("role", [Role.READER, Role.OPERATOR, Role.ADMIN])
async def test_a_role_that_may(served: Served, role: Role) -> None:
    await _version(await served.system(role))


@pytest.mark.parametrize("role", [Role.API, Role.ETCD])
async def test_a_role_that_may_not_and_what_the_log_keeps_of_it(served: Served, role: Role) -> None:
    certified = served.authority.certify(role, "ann", hosts=())
    stub = rpc.SystemServiceStub(await served.channel(certified))
    with capture_logs() as logs:
        refusal = await refused(stub.GetVersion(pb.GetVersionRequest(), timeout=60))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED")
    assert f"ann ({role}) may not call slipway.v1.SystemService/GetVersion" in refusal.message
    assert "admin or operator or reader" in refusal.message
    entry = next(entry for entry in logs if entry["event"] == "call refused")
    assert entry == {
        "event": "call refused",
        "log_level": "warning",
        "method": "slipway.v1.SystemService/GetVersion",
        "reason": "ROLE_NOT_ALLOWED",
        "subject": "ann",
        "serial": f"{certified.certificate.serial_number:x}",
    }
    assert "BEGIN" not in str(logs)


async def test_a_stream_is_refused_before_it_begins(served: Served) -> None:
    stub = await served.system(Role.API)
    refusal = await refused(anext(aiter(stub.StreamEvents(pb.StreamEventsRequest(), timeout=60))))
    assert refusal.reason == "ROLE_NOT_ALLOWED"


async def test_who_may_not_does_not_hear_what_is_wrong_with_the_request(served: Served) -> None:
    stub = await served.system(Role.API)
    refusal = await refused(anext(aiter(stub.StreamEvents(pb.StreamEventsRequest(cursor="x" * 65), timeout=60))))
    assert refusal.reason == "ROLE_NOT_ALLOWED"


@pytest.mark.parametrize("role", [Role.READER, Role.OPERATOR, Role.ADMIN])
async def test_people_do_not_call_executors(served: Served, role: Role) -> None:
    channel = await served.channel(served.authority.certify(role, hosts=()))
    refusal = await refused(node_rpc.NodeServiceStub(channel).GetNode(node_pb.GetNodeRequest(), timeout=60))
    assert refusal.reason == "ROLE_NOT_ALLOWED"


async def test_anybody_with_a_certificate_asks_for_health(served: Served) -> None:
    channel = await served.channel(served.authority.certify(Role.API, hosts=()))
    codec = (health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString)
    check = channel.unary_unary("/grpc.health.v1.Health/Check", *codec)
    assert (await check(health_pb2.HealthCheckRequest(), timeout=60)).status
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch", *codec)(health_pb2.HealthCheckRequest(), timeout=60)
    assert (await anext(aiter(watch))).status
    watch.cancel()


async def test_a_certificate_without_a_role(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.identity.Identity.dns_name", "ann.example.com")
    stub = await served.system(Role.ADMIN)
    monkeypatch.undo()
    refusal = await refused(stub.GetVersion(pb.GetVersionRequest(), timeout=60))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_WITHOUT_ROLE")


async def test_who_connects_to_the_unix_socket_may_do_everything(served: Served) -> None:
    channel = await served.stack.enter_async_context(grpc.aio.insecure_channel(served.socket))
    await _version(rpc.SystemServiceStub(channel))
    await node_rpc.NodeServiceStub(channel).GetNode(node_pb.GetNodeRequest(), timeout=60)


@pytest.mark.parametrize(
    "made",
    [
        lambda served: served.authority.certify(Role.ADMIN, hosts=(), valid=HOUR, begins=-2 * HOUR),
        lambda served: served.authority.certify(Role.ADMIN, hosts=(), valid=2 * HOUR, begins=HOUR),
        lambda served: Authority(served.directory).certify(Role.ADMIN, hosts=()),
        lambda served: served.authority.certify(Role.EXECUTOR),
    ],
    ids=["expired", "not yet valid", "another authority of the same name", "an executor's, which dials nobody"],
)
async def test_certificates_that_no_connection_comes_of(served: Served, made: Callable[[Served], Certified]) -> None:
    stub = rpc.SystemServiceStub(await served.channel(made(served)))
    assert (await refused(stub.GetVersion(pb.GetVersionRequest(), timeout=60))).code == grpc.StatusCode.UNAVAILABLE


async def test_no_certificate_and_no_tls(served: Served) -> None:
    credentials = grpc.ssl_channel_credentials(served.authority.made.certificate_pem)
    for opened in (grpc.aio.secure_channel(served.address, credentials), grpc.aio.insecure_channel(served.address)):
        channel = await served.stack.enter_async_context(opened)
        refusal = await refused(rpc.SystemServiceStub(channel).GetVersion(pb.GetVersionRequest(), timeout=60))
        assert refusal.code == grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_that_expires_ends_its_calls_and_gets_no_more(served: Served) -> None:
    stub = await served.system(Role.READER, valid=timedelta(seconds=6), begins=timedelta(0))
    stream = aiter(stub.StreamEvents(pb.StreamEventsRequest(), timeout=60))
    assert (await anext(stream)).cursor == "1"
    unary = asyncio.create_task(refused(stub.GetInfo(pb.GetInfoRequest(), timeout=60)))
    for refusal in (await refused(anext(stream)), await unary, await refused(stub.GetVersion(pb.GetVersionRequest()))):
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED")
        assert "renew it" in refusal.message


async def test_nobody_keeps_the_others_out(served: Served) -> None:
    """One caller is who a certificate names, over however many connections."""
    streams = []
    for _ in range(2):
        stub = await served.system(Role.READER)
        for _ in range(5):
            streams.append(stub.StreamEvents(pb.StreamEventsRequest(), timeout=60))
            assert (await anext(aiter(streams[-1]))).cursor == "1"
    refusal = await refused(stub.GetVersion(pb.GetVersionRequest(), timeout=60))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    await _version(await served.system(Role.ADMIN))
    await _version(await served.system(Role.READER, "bob"))
    streams.pop().cancel()
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await _version(stub)
                break
            await asyncio.sleep(0.01)


async def test_an_authority_that_is_removed_takes_its_connections_along(served: Served) -> None:
    stub = await served.system(Role.OPERATOR)
    stream = aiter(stub.StreamEvents(pb.StreamEventsRequest(), timeout=60))
    assert (await anext(stream)).cursor == "1"
    other = make_authority("test", valid=24 * HOUR)
    replace(served.files.authorities, other.certificate_pem)
    for refusal in (await refused(anext(stream)), await refused(stub.GetVersion(pb.GetVersionRequest()))):
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_UNTRUSTED")


async def test_two_authorities_side_by_side(served: Served, tmp_path: Path) -> None:
    """As while one takes the place of the other."""
    new = Authority(tmp_path)
    replace(served.files.authorities, served.authority.made.certificate_pem + new.made.certificate_pem)
    await _version(await served.system(Role.READER))
    both = Authority(tmp_path, made=new.made)
    channel = grpc.aio.secure_channel(
        served.address,
        grpc.ssl_channel_credentials(
            served.authority.made.certificate_pem, *_pair(both.certify(Role.READER, hosts=()))
        ),
    )
    await _version(rpc.SystemServiceStub(await served.stack.enter_async_context(channel)))


def _pair(certified: Certified) -> tuple[bytes, bytes]:
    return certified.key_pem, certified.certificate_pem


async def test_the_servers_certificate_is_replaced_while_calls_run(served: Served) -> None:
    """Every connection, before, after and meanwhile, gets a certificate that is whole; calls under way go on."""
    stub = await served.system(Role.READER)
    stream = aiter(stub.StreamEvents(pb.StreamEventsRequest(), timeout=60))
    assert (await anext(stream)).cursor == "1"
    done = asyncio.Event()
    made = 0

    async def calling() -> None:
        nonlocal made
        while not done.is_set():
            async with served.authority.channel(served.authority.certify(Role.READER, hosts=()), served.address) as one:
                await _version(rpc.SystemServiceStub(one))
            made += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(calling())
        for number in range(1, 21):
            served.authority.files(served.authority.certify(Role.API), directory="server")
            while made < number * 4:
                await asyncio.sleep(0)
        done.set()
    last = served.source.current().certificate
    assert await _shown(served) == last.serial_number
    await _version(stub)
    pending = asyncio.ensure_future(anext(stream))
    assert not (await asyncio.wait([pending], timeout=0.1))[0]
    pending.cancel()


async def _shown(served: Served) -> int:
    """The serial number of the certificate that a new connection sees."""
    certified = served.authority.certify(Role.READER, hosts=())
    files = served.authority.files(certified, directory="client")
    context = ssl.create_default_context(cafile=str(files.authorities))
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    host, _, port = served.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number
