"""What the claims of every store must do, run over each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from api_service.etcd.cluster import open_cluster
from api_service.etcd.target import EtcdTarget
from api_service.store.claims import Claim, Claims, Holder, LocalClaims, run_claimed

_PATIENCE = 60  # seconds until a test that waits for an event has failed


@pytest.fixture(params=["local", "etcd"])
async def replicas(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Claims, Claims]]:
    """Two processes of one cluster."""
    if request.param == "local":
        first = LocalClaims()
        yield first, LocalClaims(beside=first)
        return
    target: EtcdTarget = request.getfixturevalue("etcd_target")
    async with open_cluster(target) as one, open_cluster(target) as other:
        yield one.claims, other.claims


async def test_each_replica_has_an_id_and_knows_the_others(replicas: tuple[Claims, Claims]) -> None:
    one, other = replicas
    assert one.replica != other.replica
    assert await one.replicas() == await other.replicas() == {one.replica, other.replica}


async def test_who_holds_what_is_told_to_all(replicas: tuple[Claims, Claims]) -> None:
    one, other = replicas
    assert await other.holder("journal/a") is None
    async with one.hold("journal/a", note="follow") as claim:
        assert claim.name == "journal/a"
        assert not claim.lost.is_set()
        expected = Holder(replica=one.replica, note="follow")
        assert await one.holder("journal/a") == await other.holder("journal/a") == expected
        assert await other.holder("journal/b") is None
    async with asyncio.timeout(_PATIENCE), other.hold("journal/a"):
        assert await one.holder("journal/a") == Holder(replica=other.replica)


async def test_all_claims_of_a_kind_are_told_at_once(replicas: tuple[Claims, Claims]) -> None:
    one, other = replicas
    async with one.hold("reaches/a", note="here"), other.hold("reaches/b"), one.hold("reached"), one.hold("x"):
        expected = {
            "reaches/a": Holder(replica=one.replica, note="here"),
            "reaches/b": Holder(replica=other.replica),
        }
        assert await one.held("reaches/") == await other.held("reaches/") == expected
        assert await one.held("none/") == {}


async def test_a_word_is_the_next_holders_alone(replicas: tuple[Claims, Claims]) -> None:
    one, other = replicas
    async with asyncio.timeout(_PATIENCE):
        for first, second in ((one, other), (other, one)):
            async with first.hold("x") as claim:
                assert claim.inherited == ""
                claim.word = "7.5"
            async with second.hold("y") as elsewhere:
                assert elsewhere.inherited == ""
            async with second.hold("x") as claim:
                assert claim.inherited == "7.5"
            for claims in replicas:
                async with claims.hold("x") as claim:
                    assert claim.inherited == "", "it is not the last holder's"


async def test_who_waits_gets_the_word(replicas: tuple[Claims, Claims]) -> None:
    one, other = replicas
    inherited: list[str] = []

    async def wait() -> None:
        async with other.hold("x") as claim:
            inherited.append(claim.inherited)

    async with asyncio.timeout(_PATIENCE):
        async with one.hold("x") as claim:
            waiting = asyncio.create_task(wait())
            await asyncio.sleep(0.01)
            claim.word = "left"
        await waiting
    assert inherited == ["left"]


async def test_nobody_holds_what_another_holds(replicas: tuple[Claims, Claims]) -> None:
    inside = 0

    async def work(claims: Claims) -> None:
        nonlocal inside
        for _ in range(5):
            async with claims.hold("x"):
                inside += 1
                assert inside == 1
                await asyncio.sleep(0)
                inside -= 1

    async with asyncio.timeout(_PATIENCE):
        await asyncio.gather(*(work(claims) for claims in replicas for _ in range(4)))
        while await replicas[0].holder("x") is not None:  # it is released without waiting
            await asyncio.sleep(0.01)


async def test_one_process_waits_in_the_order_of_coming(replicas: tuple[Claims, Claims]) -> None:
    order: list[int] = []

    async def work(number: int) -> None:
        async with replicas[0].hold("x"):
            order.append(number)

    async with asyncio.timeout(_PATIENCE):
        await asyncio.gather(*(work(number) for number in range(10)))
    assert order == list(range(10))


async def test_trying_does_not_wait(replicas: tuple[Claims, Claims]) -> None:
    one, other = replicas
    async with one.try_hold("x") as claim:
        assert claim is not None
        for claims in (one, other):
            async with claims.try_hold("x") as second:
                assert second is None
        async with other.try_hold("y") as elsewhere:
            assert elsewhere is not None
    async with asyncio.timeout(_PATIENCE), other.hold("x"):
        pass


async def test_who_stops_waiting_hinders_nobody(replicas: tuple[Claims, Claims]) -> None:
    one, other = replicas
    got = asyncio.Event()

    async def work() -> None:
        async with other.hold("x"):
            got.set()

    async with asyncio.timeout(_PATIENCE):
        async with one.hold("x"):
            leaving = [asyncio.create_task(work()) for _ in range(3)]
            staying = asyncio.create_task(work())
            await asyncio.sleep(0.01)
            for task in leaving:
                task.cancel()
            await asyncio.wait(leaving)
            assert not got.is_set()
        await staying
    assert all(task.cancelled() for task in leaving)
    async with asyncio.timeout(_PATIENCE):
        while await one.holder("x") is not None:
            await asyncio.sleep(0.01)


async def test_who_leaves_in_the_moment_of_its_turn_passes_it_on() -> None:
    claims = LocalClaims()

    async def work() -> None:
        async with claims.hold("x"):
            pass

    async with claims.hold("x"):
        leaving = asyncio.create_task(work())
        await asyncio.sleep(0)
        staying = asyncio.create_task(work())
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait((leaving, staying), timeout=_PATIENCE)
    assert leaving.cancelled()
    assert staying.done()
    assert await claims.holder("x") is None


async def test_claimed_work_moves_when_its_holder_ends(replicas: tuple[Claims, Claims]) -> None:
    begun: asyncio.Queue[str] = asyncio.Queue()

    def work(name: str) -> asyncio.Task[None]:
        async def run() -> None:
            begun.put_nowait(name)
            await asyncio.Event().wait()

        claims = replicas[0] if name == "one" else replicas[1]
        return asyncio.create_task(run_claimed(claims, "journal/a", run))

    async with asyncio.timeout(_PATIENCE):
        one = work("one")
        assert await begun.get() == "one"
        other = work("other")
        await asyncio.sleep(0.01)
        assert begun.empty()
        one.cancel()
        assert await begun.get() == "other"
        other.cancel()
        await asyncio.wait((one, other))


async def test_claimed_work_that_fails_is_no_secret(replicas: tuple[Claims, Claims]) -> None:
    async def fail() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await run_claimed(replicas[0], "x", fail)
    async with asyncio.timeout(_PATIENCE), replicas[1].hold("x"):
        pass


async def test_claimed_work_ends_with_its_claim_and_begins_again(
    replicas: tuple[Claims, Claims], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One claim is lost here. On etcd all of a process go with its lease, which has a test of its own."""
    given: list[Claim] = []
    steps: asyncio.Queue[str] = asyncio.Queue()

    claims = replicas[0]
    original = claims.hold

    class _Hold:
        def __init__(self, name: str) -> None:
            self._inner = original(name)

        async def __aenter__(self) -> Claim:
            claim = await self._inner.__aenter__()
            given.append(Claim(name=claim.name))
            return given[-1]

        async def __aexit__(self, *about: object) -> None:
            await self._inner.__aexit__(None, None, None)

    monkeypatch.setattr(claims, "hold", _Hold)

    async def run() -> None:
        steps.put_nowait("begun")
        try:
            await asyncio.Event().wait()
        finally:
            steps.put_nowait("ended")

    task = asyncio.create_task(run_claimed(claims, "x", run))
    async with asyncio.timeout(_PATIENCE):
        assert await steps.get() == "begun"
        given[0].lost.set()
        assert [await steps.get(), await steps.get()] == ["ended", "begun"]
        assert len(given) == 2
        task.cancel()
        await asyncio.wait([task])
