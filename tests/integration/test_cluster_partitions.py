"""A cluster whose parts do not reach each other for a while: each goes on with what it has, and catches up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import container_service_pb2 as pb

from tests.fixtures.api import refused
from tests.fixtures.beats import BEATING, Beats
from tests.fixtures.cluster import (
    ETCD_PEER_PORT,
    ETCD_PORT,
    EXECUTOR_PORT,
    LOST,
    READY,
    UNTIL_TOLD,
    Cluster,
    again_and_again,
    cluster,
    end_unseen,
    exited_with_7,
    live,
    run_on,
)
from tests.fixtures.cluster_crew import NETWORK, unharmed
from tests.fixtures.cluster_records import all_equal
from tests.fixtures.slipway import Slipway

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

APART = 10.0  # seconds


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def three() -> AsyncIterator[Cluster]:
    async with cluster() as made:
        yield made


async def unavailable(engine: Slipway, container: str) -> str:
    """What a request that cannot be served now is told."""
    request = pb.StopContainerRequest(container=container, timeout=0)
    refusal = await refused(engine.containers.StopContainer(request, timeout=40))
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    return refusal.message


async def test_a_node_that_is_cut_off(three: Cluster, tmp_path: Path) -> None:
    """With a member of etcd. Long enough for it to be lost, and for what may run elsewhere to do so."""
    machine, beats = three.machines["n3"], Beats(tmp_path / "beats")
    async with unharmed(three):
        binds = [f"{beats.directory}:/beats"]
        web = await three.run_movable("n3", "web", "sh", "-c", BEATING, network=NETWORK, binds=binds)
        ending = await run_on(three.one, "n3", "ends", *UNTIL_TOLD, network=NETWORK)
        await beats.until_runs(1)
        with machine.cut_off():
            since = time.monotonic()
            await end_unseen(three.one, ending)
            for replica in three.replicas:
                assert "n3" in await unavailable(replica, "stays-n3")
                await live(replica, "n1")
                assert (await replica.inspect("stays-n3")).state.running
            await three.until("n3", LOST)
            print(f"node cut off: its loss is known after {time.monotonic() - since:.2f} s")
            await three.runs_elsewhere(web, "n3")
            await beats.until_runs(2)
            print(f"node cut off: its container runs elsewhere after {time.monotonic() - since:.2f} s")
            await asyncio.sleep(max(0.0, since + APART - time.monotonic()))
        since = time.monotonic()
        await three.until("n3", READY)
        print(f"node there again: known after {time.monotonic() - since:.2f} s")
        await exited_with_7(three.other, ending)
        await all_equal(three)
        assert len(beats.runs()) == 2
        assert beats.never_twice()


async def test_an_api_that_does_not_reach_etcd(three: Cluster) -> None:
    """It shows what it knows; the other one follows the nodes."""
    members = [machine.address for machine in three.machines.values()]
    for cut in three.replicas:
        other = three.beside(cut)
        async with unharmed(three):
            ending = [await run_on(cut, node, f"ends-{node}", *UNTIL_TOLD) for node in three.machines]
            with three.machine_of(cut).kept_from(port=ETCD_PORT, addresses=members):
                since = time.monotonic()
                assert "etcd" in await unavailable(cut, "stays-n1")
                print(f"API without etcd: it says so after {time.monotonic() - since:.2f} s")
                assert (await cut.inspect("stays-n1")).state.running
                for container in ending:
                    await end_unseen(other, container)
                for node in three.machines:
                    await again_and_again(partial(live, other, node), since=since)
                for container in ending:
                    await exited_with_7(other, container)
                print(f"API without etcd: the other one tells of the nodes after {time.monotonic() - since:.2f} s")
            since = time.monotonic()
            taken = await again_and_again(partial(live, cut, "n1"), since=since)
            print(f"API with etcd again: it serves after {taken:.2f} s")


async def test_a_member_of_etcd_that_does_not_reach_the_others(three: Cluster) -> None:
    """It takes what it is asked, and can do nothing: whoever asks and watches there goes to another one. The leader
    first, then each, so that those that the API services have chosen are among them."""
    leader = three.etcd.leader()
    async with unharmed(three):
        for alone in sorted(three.machines.values(), key=lambda machine: three.member(machine) is not leader):
            ending = await run_on(three.one, "n1", "", *UNTIL_TOLD)
            others = [each.address for each in three.machines.values() if each is not alone]
            with alone.apart_from(port=ETCD_PEER_PORT, addresses=others):
                since = time.monotonic()
                await end_unseen(three.one, ending)
                for replica in three.replicas:
                    await again_and_again(partial(live, replica, "n2"), since=since)
                    await exited_with_7(replica, ending)
                which = "the leader" if three.member(alone) is leader else "a member"
                print(f"{which} of etcd alone: both API services serve after {time.monotonic() - since:.2f} s")


async def test_etcd_without_a_majority(three: Cluster) -> None:
    async with unharmed(three):
        ending = await run_on(three.one, "n1", "ends", *UNTIL_TOLD)
        gone = three.etcd.members[1:]
        for member in gone:
            member.kill()
        for said in await asyncio.gather(*(unavailable(replica, "stays-n1") for replica in three.replicas)):
            assert "etcd" in said
        for replica in three.replicas:
            assert (await replica.inspect("stays-n1")).state.running
        await end_unseen(three.one, ending)
        since = time.monotonic()
        await asyncio.to_thread(three.etcd.start, *gone)
        for number, replica in enumerate(three.replicas, 1):
            taken = await again_and_again(partial(live, replica, "n1"), since=since)
            print(f"etcd with a majority again: api{number} serves after {taken:.2f} s")
        await exited_with_7(three.other, ending)


async def test_an_api_that_does_not_reach_an_executor(three: Cluster, tmp_path: Path) -> None:
    """The other one does. What may run elsewhere may move, when the one that follows the node takes it for lost."""
    for number, cut in enumerate(three.replicas, 1):
        other, beats = three.beside(cut), Beats(tmp_path / f"beats{number}")
        async with unharmed(three):
            binds = [f"{beats.directory}:/beats"]
            await three.run_movable("n3", "web", "sh", "-c", BEATING, network=NETWORK, binds=binds)
            ending = await run_on(cut, "n3", "ends", *UNTIL_TOLD)
            stopping = await run_on(cut, "n3", "stops")
            with three.machine_of(cut).kept_from(port=EXECUTOR_PORT, addresses=[three.machines["n3"].address]):
                since = time.monotonic()
                await end_unseen(cut, ending)
                assert "n3" in await unavailable(cut, "stays-n3")
                print(f"API without an executor: it says so after {time.monotonic() - since:.2f} s")
                await live(cut, "n2")
                await other.containers.StopContainer(pb.StopContainerRequest(container=stopping, timeout=0), timeout=30)
                assert not (await cut.inspect(stopping)).state.running
                await asyncio.sleep(max(0.0, since + APART - time.monotonic()))
            since = time.monotonic()
            taken = await again_and_again(partial(live, cut, "n3"), since=since)
            print(f"API with the executor again: it serves after {taken:.2f} s")
            await exited_with_7(cut, ending)
            await all_equal(three)
            assert len(beats.runs()) in (1, 2)
            assert beats.never_twice()
