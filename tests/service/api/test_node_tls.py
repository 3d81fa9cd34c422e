"""An executor on another machine: dialled with certificates on both sides, and only the right one is talked to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from slipway.executor.v1 import node_service_pb2 as pb
from slipway.executor.v1 import node_service_pb2_grpc as rpc
from slipway.executor.v1 import runtime_service_pb2 as runtime_pb
from slipway.executor.v1 import runtime_service_pb2_grpc as runtime_rpc

from api_service.deadline import Deadline
from api_service.executor_grpc import channel as executor_channel
from api_service.executor_grpc import peer
from api_service.executor_grpc.executor import GrpcExecutor
from api_service.executor_grpc.peer import certified_until
from common import tls
from common.callers import Callers
from common.certificate_authority import Certified, make_authority
from common.errors import FailedPrecondition, Unavailable
from common.identity import Role
from common.interceptor import CallInterceptor
from common.protocol_version import OURS
from common.tls import TlsMaterial, TlsSource, server_credentials
from tests.fixtures.certificates import Authority, replace
from tests.fixtures.relay import relay


class _Node(rpc.NodeServiceServicer):
    def __init__(self) -> None:
        self.connections: set[str] = set()

    async def GetNode(self, request: pb.GetNodeRequest, context: Any) -> pb.GetNodeResponse:
        self.connections.add(context.peer())
        return pb.GetNodeResponse(node_id="x", protocol_version=OURS.latest, oldest_protocol_version=OURS.oldest)

    async def GetDiskUsage(self, request: pb.GetDiskUsageRequest, context: Any) -> pb.GetDiskUsageResponse:
        return pb.GetDiskUsageResponse()

    async def RenewLease(self, request: pb.RenewLeaseRequest, context: Any) -> pb.RenewLeaseResponse:
        return pb.RenewLeaseResponse()


class _Runtime(runtime_rpc.RuntimeServiceServicer):
    async def FollowJournal(
        self, request: runtime_pb.FollowJournalRequest, context: Any
    ) -> AsyncIterator[runtime_pb.FollowJournalResponse]:
        yield runtime_pb.FollowJournalResponse(journal_id="j")
        await asyncio.Event().wait()


class Place:
    """An authority, and executors on ports."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.stack = AsyncExitStack()
        self.node = _Node()

    async def serve(self, certified: Certified) -> str:
        """The address."""
        source = TlsSource(self.authority.files(certified, directory="executor"))
        server = grpc.aio.server(interceptors=[CallInterceptor(callers=Callers(source))])
        rpc.add_NodeServiceServicer_to_server(self.node, server)
        runtime_rpc.add_RuntimeServiceServicer_to_server(_Runtime(), server)  # type: ignore[abstract]  # no other call
        port = server.add_secure_port("127.0.0.1:0", server_credentials(source))
        await server.start()
        self.stack.push_async_callback(server.stop, 0)
        return f"127.0.0.1:{port}"

    async def dial(self, address: str, certified: Certified, *, node: str = "n1") -> GrpcExecutor:
        source = TlsSource(self.authority.files(certified, directory="api"))
        return await self.stack.enter_async_context(GrpcExecutor(node=node, address=address, tls=source))


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr(tls, "_LOOK_EVERY", 0.0)
    place = Place(tmp_path)
    async with place.stack:
        yield place


async def _facts(executor: GrpcExecutor) -> str:
    return (await executor.facts(deadline=Deadline.after(60))).node_id


async def test_the_executor_of_that_node(place: Place) -> None:
    address = await place.serve(place.authority.certify(Role.EXECUTOR, "n1", hosts=()))
    assert await _facts(await place.dial(address, place.authority.certify(Role.API, "api1"))) == "x"


@pytest.mark.parametrize(
    ("role", "name", "options"),
    [
        (Role.EXECUTOR, "n2", {}),
        (Role.EXECUTOR, "n1.n1", {}),
        (Role.API, "n1", {"hosts": ["n1", "127.0.0.1"]}),
        (Role.ETCD, "n1", {}),
        (Role.EXECUTOR, "n1", {"valid": timedelta(hours=1), "begins": timedelta(hours=-2)}),
        (Role.EXECUTOR, "n1", {"valid": timedelta(hours=2), "begins": timedelta(hours=1)}),
    ],
    ids=["another node", "a longer name", "an API of that name", "a member of etcd", "expired", "not yet valid"],
)
async def test_somebody_else_at_the_address(place: Place, role: Role, name: str, options: dict[str, Any]) -> None:
    address = await place.serve(place.authority.certify(role, name, **options))
    executor = await place.dial(address, place.authority.certify(Role.API, "api1"))
    with pytest.raises(Unavailable, match=f"node 'n1': its executor at {address} does not answer") as caught:
        await _facts(executor)
    assert caught.value.reason == "NODE_UNAVAILABLE"
    assert place.node.connections == set()


async def test_an_executor_of_another_authority(place: Place, tmp_path: Path) -> None:
    address = await place.serve(Authority(tmp_path).certify(Role.EXECUTOR, "n1"))
    executor = await place.dial(address, place.authority.certify(Role.API, "api1"))
    with pytest.raises(Unavailable):
        await _facts(executor)


@pytest.mark.parametrize("role", [Role.ADMIN, Role.READER])
async def test_a_service_that_shows_a_certificate_of_another_role(place: Place, role: Role) -> None:
    """That is the service's fault and not its client's, who must not hear that it may not."""
    address = await place.serve(place.authority.certify(Role.EXECUTOR, "n1"))
    executor = await place.dial(address, place.authority.certify(role, "api1", hosts=()))
    with pytest.raises(Unavailable, match=f"refuses this service: api1 \\({role}\\) may not call") as caught:
        await _facts(executor)
    assert caught.value.reason == "NODE_REFUSES"
    assert caught.value.metadata["because"] == "ROLE_NOT_ALLOWED"


async def test_another_machine_without_certificates(place: Place) -> None:
    with pytest.raises(FailedPrecondition, match="give this service tls_cert, tls_key and tls_ca") as caught:
        async with GrpcExecutor(node="n1", address="192.0.2.1:50052"):
            raise AssertionError("dialled")
    assert caught.value.reason == "TLS_REQUIRED"


async def test_a_renewed_certificate_is_shown_while_calls_run_on(place: Place) -> None:
    """Calls go through a new connection; the stream over the old one goes on, and takes it along when it ends."""
    address = await place.serve(place.authority.certify(Role.EXECUTOR, "n1"))
    first = place.authority.certify(Role.API, "api1", valid=timedelta(seconds=30), begins=timedelta(0))
    executor = await place.dial(address, first)
    journal = executor.follow_journal(journal_id="", after=0)
    assert (await anext(journal)).journal_id == "j"
    await _facts(executor)
    place.authority.files(place.authority.certify(Role.API, "api1"), directory="api")
    await asyncio.gather(*(_facts(executor) for _ in range(20)))
    assert len(place.node.connections) == 2
    pending = asyncio.ensure_future(anext(journal))
    assert not (await asyncio.wait([pending], timeout=0.1))[0]
    pending.cancel()
    await asyncio.wait([pending])
    await journal.aclose()
    await _facts(executor)
    assert len(place.node.connections) == 2


async def test_an_authority_that_is_taken_away_takes_the_connection_along(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also from under a stream that is being waited for, and when nothing else is asked of the node."""
    monkeypatch.setattr(executor_channel, "_LOOK_EVERY", 0.02)
    address = await place.serve(place.authority.certify(Role.EXECUTOR, "n1"))
    executor = await place.dial(address, place.authority.certify(Role.API, "api1"))
    journal = executor.follow_journal(journal_id="", after=0)
    assert (await anext(journal)).journal_id == "j"
    replace(tmp_path / "api/ca.crt", make_authority("test", valid=timedelta(days=1)).certificate_pem)
    with pytest.raises(Unavailable, match="its connection was given up") as caught:
        await asyncio.wait_for(anext(journal), 60)
    assert caught.value.reason == "NODE_UNAVAILABLE"
    with pytest.raises(Unavailable):
        await _facts(executor)


async def test_to_look_at_many_nodes_takes_one_context(place: Place) -> None:
    address = await place.serve(place.authority.certify(Role.EXECUTOR, "n1"))
    source = TlsSource(place.authority.files(place.authority.certify(Role.API, "api1"), directory="api"))
    before = peer._context.cache_info().misses
    ends = {
        await certified_until(address, name="n1.executor.slipway.internal", material=source.current()) for _ in range(5)
    }
    assert len(ends) == 1
    assert peer._context.cache_info().misses == before + 1


async def test_files_that_cannot_be_looked_at_are_looked_at_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_channel, "_LOOK_EVERY", 0.02)
    address = await place.serve(place.authority.certify(Role.EXECUTOR, "n1"))
    executor = await place.dial(address, place.authority.certify(Role.API, "api1"))
    await _facts(executor)
    looked: list[bool] = []
    again, current = asyncio.Event(), TlsSource.current

    def look(source: TlsSource) -> TlsMaterial:
        looked.append(True)
        if len(looked) == 1:
            raise OSError("they were just being replaced")
        again.set()
        return current(source)

    monkeypatch.setattr(TlsSource, "current", look)
    await asyncio.wait_for(again.wait(), 60)


async def test_a_nodes_certificate_that_ends_takes_the_connection_along(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor_channel, "_LOOK_EVERY", 0.02)
    short = place.authority.certify(Role.EXECUTOR, "n1", valid=timedelta(seconds=8), begins=timedelta(0))
    address = await place.serve(short)
    executor = await place.dial(address, place.authority.certify(Role.API, "api1"))
    journal = executor.follow_journal(journal_id="", after=0)
    assert (await anext(journal)).journal_id == "j"
    with pytest.raises(Unavailable, match="its connection was given up"):
        await asyncio.wait_for(anext(journal), 60)
    assert datetime.now(UTC) >= short.certificate.not_valid_after_utc
    with pytest.raises(Unavailable):
        await _facts(executor)
    place.authority.files(place.authority.certify(Role.EXECUTOR, "n1"), directory="executor")
    async with asyncio.timeout(60):
        while len(place.node.connections) == 0:
            with contextlib.suppress(Unavailable):  # it is tried again after a while
                await _facts(executor)


async def test_a_nodes_renewed_certificate_is_asked_for_before_the_other_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call fails but what lasts for longer than its certificate."""
    seen = asyncio.Event()

    async def look(*of: Any, **more: Any) -> datetime:
        until = await certified_until(*of, **more)
        seen.set()
        return until

    monkeypatch.setattr(executor_channel, "_LOOK_EVERY", 0.02)
    monkeypatch.setattr(executor_channel, "certified_until", look)
    short = place.authority.certify(Role.EXECUTOR, "n1", valid=timedelta(seconds=8), begins=timedelta(0))
    address = await place.serve(short)
    executor = await place.dial(address, place.authority.certify(Role.API, "api1"))
    journal = executor.follow_journal(journal_id="", after=0)
    assert (await anext(journal)).journal_id == "j"
    ended = asyncio.ensure_future(anext(journal))
    await asyncio.wait_for(seen.wait(), 60)
    place.authority.files(place.authority.certify(Role.EXECUTOR, "n1"), directory="executor")
    async with asyncio.timeout(60):
        while len(place.node.connections) < 2:
            await _facts(executor)
    assert not ended.done()
    while not ended.done():
        await _facts(executor)
    with pytest.raises(Unavailable, match="its connection was given up"):
        await ended
    assert datetime.now(UTC) >= short.certificate.not_valid_after_utc
    assert len(place.node.connections) == 2


async def test_who_stops_waiting_is_cancelled_and_nothing_else(place: Place) -> None:
    address = await place.serve(place.authority.certify(Role.EXECUTOR, "n1"))
    executor = await place.dial(address, place.authority.certify(Role.API, "api1"))
    journal = executor.follow_journal(journal_id="", after=0)
    assert (await anext(journal)).journal_id == "j"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(journal)


async def test_a_node_that_is_far_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handshake takes longer than gRPC waits between two attempts to connect to a service of this machine."""
    monkeypatch.setattr(executor_channel, "_LOOK_EVERY", 3600.0)  # no connection but that of calls
    attempts: list[None] = []

    async def delay(_data: bytes) -> None:
        await asyncio.sleep(0.1)  # the way there, and the way back

    executor = await place.serve(place.authority.certify(Role.EXECUTOR, "n1"))
    source = TlsSource(place.authority.files(place.authority.certify(Role.API, "api1"), directory="api"))
    async with (
        relay(executor, before=delay, after=delay, connected=lambda: attempts.append(None)) as address,
        GrpcExecutor(node="n1", address=address, tls=source) as dialled,
    ):
        assert await _facts(dialled) == "x"
    assert len(attempts) == 1
