"""A call of a node that this service has no connection to: it waits for one while the records say that the node
answers, or somebody listens on this machine, for a few seconds at most, and fails at once otherwise."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from api_service.deadline import Deadline
from api_service.executor_grpc import channel, patience
from api_service.executor_grpc.channel import RenewedChannel
from api_service.executor_grpc.executor import GrpcExecutor
from common.certificate_authority import Certified
from common.errors import DeadlineExceeded, Unavailable
from common.identity import Role
from common.tls import TlsSource, server_credentials
from tests.fixtures.api import PATIENCE
from tests.fixtures.certificates import Authority
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.relay import relay


@pytest.fixture
async def away(tmp_path: Path) -> AsyncIterator[tuple[FakeExecutor, GrpcExecutor]]:
    """An executor that does not answer, and an attempt to reach it has just failed."""
    fake = FakeExecutor(tmp_path / "executor.sock")
    async with GrpcExecutor(node="n1", address=fake.address) as dialled:
        with pytest.raises(Unavailable):
            await dialled.facts(deadline=Deadline.after(5))
        try:
            yield fake, dialled
        finally:
            await fake.down()


async def _still_waits(call: asyncio.Task[object]) -> bool:
    done, _ = await asyncio.wait([call], timeout=0.3)
    return not done


def _facts(dialled: GrpcExecutor, seconds: float = 30.0) -> asyncio.Task[object]:
    return asyncio.ensure_future(dialled.facts(deadline=Deadline.after(seconds)))


def _journal(dialled: GrpcExecutor) -> asyncio.Task[object]:
    return asyncio.ensure_future(anext(dialled.follow_journal(journal_id="", after=0)))


@pytest.mark.parametrize("begin", [_facts, _journal], ids=["a call", "a stream"])
async def test_it_waits_for_a_node_that_is_ready(
    away: tuple[FakeExecutor, GrpcExecutor], begin: Callable[[GrpcExecutor], asyncio.Task[object]]
) -> None:
    fake, dialled = away
    dialled.expect(ready=True)
    call = begin(dialled)
    assert await _still_waits(call)
    await fake.up()
    await asyncio.wait_for(call, patience._PATIENCE)


async def test_it_does_not_wait_for_long(
    away: tuple[FakeExecutor, GrpcExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call of the same request not at all, unless the node is on record as ready once more."""
    monkeypatch.setattr(patience, "_PATIENCE", 0.5)
    monkeypatch.setattr(patience, "_NOT_AGAIN", 60.0)
    fake, dialled = away
    dialled.expect(ready=True)
    call = _facts(dialled)
    assert await _still_waits(call)
    with pytest.raises(Unavailable, match="does not answer") as caught:
        await asyncio.wait_for(call, 10)
    assert caught.value.reason == "NODE_UNAVAILABLE"
    monkeypatch.setattr(patience, "_PATIENCE", 60.0)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(_facts(dialled), 10)
    dialled.expect(ready=False)
    dialled.expect(ready=True)
    call = _facts(dialled)
    assert await _still_waits(call)
    await fake.up()
    await asyncio.wait_for(call, 10)


async def test_it_does_not_wait_for_longer_than_its_deadline(
    away: tuple[FakeExecutor, GrpcExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_PATIENCE", 60.0)
    _, dialled = away
    dialled.expect(ready=True)
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(_facts(dialled, 0.5), 30)


async def test_it_does_not_wait_for_a_node_that_is_not_ready(
    away: tuple[FakeExecutor, GrpcExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor any longer, as soon as that is known."""
    monkeypatch.setattr(patience, "_PATIENCE", 60.0)
    _, dialled = away
    with pytest.raises(Unavailable):
        await asyncio.wait_for(_facts(dialled), 10)
    dialled.expect(ready=True)
    call = _facts(dialled)
    assert await _still_waits(call)
    dialled.expect(ready=False)  # and the last attempt has failed
    with pytest.raises(Unavailable):
        await asyncio.wait_for(call, 10)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(_facts(dialled), 10)


async def test_an_executor_on_this_machine_can_be_called_as_soon_as_it_is_there(
    away: tuple[FakeExecutor, GrpcExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the records say of it yet, and though gRPC would not try again this moment."""
    monkeypatch.setattr(patience, "_MOMENT", 60.0)
    monkeypatch.setattr(patience, "_PATIENCE", 60.0)
    fake, dialled = away
    dialled.expect(ready=False)
    for _ in range(5):  # gRPC waits longer each time
        with pytest.raises(Unavailable):
            await asyncio.wait_for(_facts(dialled), 10)
    await fake.up()
    await _facts(dialled)


async def test_who_listens_and_says_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_PATIENCE", 3600.0)
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(tmp_path / "executor.sock"))
        frozen.listen()
        async with GrpcExecutor(node="n1", address=f"unix://{tmp_path}/executor.sock") as dialled:
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await dialled.facts(deadline=Deadline.after(60))


async def test_an_attempt_under_way_is_waited_for_whatever_becomes_known(tmp_path: Path) -> None:
    fake = FakeExecutor(tmp_path / "executor.sock")
    async with fake.serving(), GrpcExecutor(node="n1", address=fake.address) as dialled:
        dialled.expect(ready=True)
        call = _facts(dialled)
        await asyncio.sleep(0)
        dialled.expect(ready=False)
        await asyncio.wait_for(call, 10)


class Link:
    """Between a service and an executor on another machine. While it is cut, what is sent over it is lost, and so for
    ever with the connections of then, as long as they live."""

    def __init__(self) -> None:
        self.cut = False
        self.connections = 0
        self._lost = asyncio.Event()

    def to(self, target: str) -> AbstractAsyncContextManager[str]:
        return relay(target, before=self._pass, after=self._pass, connected=self._connected)

    def _connected(self) -> None:
        self.connections += 1

    async def _pass(self, _data: bytes) -> None:
        if self.cut:
            self._lost.set()
            await asyncio.Event().wait()

    async def attempt(self) -> None:
        """Until somebody tries to connect, in vain."""
        self._lost.clear()
        await asyncio.wait_for(self._lost.wait(), 10)


@asynccontextmanager
async def far_away(directory: Path, link: Link) -> AsyncIterator[GrpcExecutor]:
    authority, fake = Authority(directory), FakeExecutor(directory / "executor.sock")

    def source(certified: Certified, of: str) -> TlsSource:
        return TlsSource(authority.files(certified, directory=of))

    port = await fake.up(server_credentials(source(authority.certify(Role.EXECUTOR, "n1"), "executor")))
    with pytest.MonkeyPatch.context() as patched:
        # No connections but those of calls, and an attempt to make one that hangs does so for longer than a call lasts.
        patched.setattr(channel, "_LOOK_EVERY", 3600.0)
        patched.setattr(channel, "_BETWEEN_MACHINES", (("grpc.min_reconnect_backoff_ms", 5_000),))
        try:
            async with (
                link.to(f"127.0.0.1:{port}") as address,
                GrpcExecutor(
                    node="n1", address=address, tls=source(authority.certify(Role.API, "api1"), "api")
                ) as dialled,
            ):
                yield dialled
        finally:
            await fake.down()


async def test_it_does_not_wait_for_an_attempt_that_hangs(tmp_path: Path) -> None:
    """What was sent while the link was cut is lost: a new attempt is made at once."""
    link = Link()
    async with far_away(tmp_path, link) as dialled:
        link.cut = True
        with pytest.raises(Unavailable):
            await dialled.facts(deadline=Deadline.after(30))
        await link.attempt()
        link.cut = False
        before = link.connections
        dialled.expect(ready=True)
        await dialled.facts(deadline=Deadline.after(3))
        assert link.connections == before + 1


async def test_a_node_that_was_away_is_not_asked_over_the_connection_of_before(tmp_path: Path) -> None:
    link = Link()
    async with far_away(tmp_path, link) as dialled:
        await dialled.facts(deadline=Deadline.after(10))
        link.cut = True
        with pytest.raises(DeadlineExceeded):
            await dialled.facts(deadline=Deadline.after(0.5))
        link.cut = False
        dialled.connect_anew()
        dialled.expect(ready=True)
        await dialled.facts(deadline=Deadline.after(2))
        assert link.connections == 2


async def test_certificates_of_many_nodes_are_not_looked_at_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[asyncio.Task[object] | None, float] = {}  # seconds, by who waits for as long before it looks
    begun: dict[asyncio.Task[object] | None, float] = {}
    waited: dict[asyncio.Task[object] | None, float] = {}
    all_looked = asyncio.Event()

    def draw(least: float, most: float) -> float:
        task = asyncio.current_task()
        drawn[task], begun[task] = random.uniform(least, most), time.monotonic()
        return drawn[task]

    async def look(of: RenewedChannel) -> None:
        task = asyncio.current_task()
        waited.setdefault(task, time.monotonic() - begun[task])
        if len(waited) == 40:
            all_looked.set()

    monkeypatch.setattr(channel, "_LOOK_EVERY", 1.0)
    monkeypatch.setattr(channel, "random", SimpleNamespace(uniform=draw))
    monkeypatch.setattr(RenewedChannel, "_look_at_peer", look)
    authority = Authority(tmp_path)
    source = TlsSource(authority.files(authority.certify(Role.API, "api1"), directory="api"))
    async with AsyncExitStack() as stack:
        for number in range(40):
            await stack.enter_async_context(GrpcExecutor(node=f"n{number}", address="127.0.0.1:1", tls=source))
        await asyncio.wait_for(all_looked.wait(), PATIENCE)
    assert max(drawn.values()) - min(drawn.values()) > 0.5
    early = 0.001  # what a loop's clock may be off
    assert all(seconds > drawn[task] - early for task, seconds in waited.items())
