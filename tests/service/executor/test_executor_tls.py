"""The executor beyond its machine: on TCP it speaks to API services with a certificate, and to nobody else."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from slipway.executor.v1 import node_service_pb2 as pb
from slipway.executor.v1 import node_service_pb2_grpc as rpc

from common.call_terms import ADDRESSEE
from common.errors import FailedPrecondition
from common.identity import Role
from common.tls import TlsSource
from executor_service.executor import Executor
from executor_service.server import serving
from tests.fixtures.api import refused
from tests.fixtures.certificates import Authority
from tests.fixtures.fake_host.host import FakeHost


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> TlsSource:
    return TlsSource(authority.files(authority.certify(Role.EXECUTOR), directory="executor"))


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
async def executor(host: FakeHost) -> AsyncIterator[Executor]:
    host.paths.socket.parent.mkdir(parents=True, exist_ok=True)
    async with host.executor() as executor:
        yield executor


async def test_who_reaches_it(
    executor: Executor, host: FakeHost, authority: Authority, tls: TlsSource, address: str
) -> None:
    async with serving(executor, socket=host.paths.socket, socket_gid=0, more=[address], tls=tls, grace=2):
        for role, code in [(Role.API, None), (Role.ADMIN, grpc.StatusCode.PERMISSION_DENIED)]:
            async with authority.channel(authority.certify(role, hosts=()), address) as channel:
                call = rpc.NodeServiceStub(channel).GetNode(pb.GetNodeRequest(), timeout=60)
                if code is None:
                    assert (await call).node_id
                else:
                    assert (await refused(call)).code == code
        async with grpc.aio.insecure_channel(address) as channel:
            refusal = await refused(rpc.NodeServiceStub(channel).GetNode(pb.GetNodeRequest(), timeout=60))
            assert refusal.code == grpc.StatusCode.UNAVAILABLE
        async with grpc.aio.insecure_channel(f"unix://{host.paths.socket}") as channel:
            assert (await rpc.NodeServiceStub(channel).GetNode(pb.GetNodeRequest(), timeout=60)).node_id


async def test_who_may_not_call_it_does_not_learn_its_id(
    executor: Executor, host: FakeHost, authority: Authority, tls: TlsSource, address: str
) -> None:
    """Not even by naming another executor: that refusal, which says whose the address is, is for API services."""
    meant = ((ADDRESSEE, "somebody"),)
    async with (
        serving(executor, socket=host.paths.socket, socket_gid=0, more=[address], tls=tls, grace=2),
        authority.channel(authority.certify(Role.READER, hosts=()), address) as reader,
        authority.channel(authority.certify(Role.API, hosts=()), address) as api,
    ):
        codec = (health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString)
        check = reader.unary_unary("/grpc.health.v1.Health/Check", *codec)
        assert (await check(health_pb2.HealthCheckRequest(), metadata=meant, timeout=60)).status
        get = rpc.NodeServiceStub(reader).GetNode(pb.GetNodeRequest(), metadata=meant, timeout=60)
        why = await refused(get)
        assert (why.reason, executor.node.journal.node_id in why.message) == ("ROLE_NOT_ALLOWED", False)
        why = await refused(rpc.NodeServiceStub(api).GetNode(pb.GetNodeRequest(), metadata=meant, timeout=60))
        assert (why.reason, executor.node.journal.node_id in why.message) == ("ANOTHER_EXECUTOR", True)


async def test_two_executors_do_not_share_a_port(
    executor: Executor, host: FakeHost, tls: TlsSource, address: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        first = serving(executor, socket=host.paths.socket, socket_gid=0, more=[address], tls=tls, grace=2)
        await stack.enter_async_context(first)
        with pytest.raises(FailedPrecondition, match=f"cannot listen on {address}") as caught:
            async with serving(executor, socket=tmp_path / "b.sock", socket_gid=0, more=[address], tls=tls, grace=2):
                raise AssertionError("both serve")
        assert caught.value.reason == "ADDRESS_IN_USE"
