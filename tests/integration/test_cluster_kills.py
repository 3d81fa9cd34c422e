"""A cluster whose processes are killed: what runs runs on, what was acknowledged stays, every record is right again."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import system_service_pb2 as system_pb

from tests.fixtures.api import refused
from tests.fixtures.beats import BEATING, Beats
from tests.fixtures.cluster import (
    LOST,
    READY,
    UNREACHABLE,
    UNTIL_TOLD,
    Cluster,
    again_and_again,
    end_unseen,
    exited_with_7,
    interrupted,
    live,
    run_on,
)
from tests.fixtures.cluster_crew import NETWORK, fetched, serving, unharmed
from tests.fixtures.cluster_records import all_equal
from tests.fixtures.slipway import Slipway

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]


async def test_a_replica(three: Cluster) -> None:
    """Either of them, so that the one that follows a node is among them."""
    for victim in three.replicas:
        other = three.beside(victim)
        async with unharmed(three) as acknowledged:
            ending = [await run_on(victim, node, f"ends-{node}", *UNTIL_TOLD) for node in three.machines]
            acknowledged += await interrupted(victim.api.kill(), victim, "")
            since = time.monotonic()
            for container in ending:
                await end_unseen(other, container)
            for node in three.machines:
                taken = await again_and_again(partial(live, other, node), since=since)
                print(f"replica killed: {node} is served by the other one after {taken:.2f} s")
            for container in ending:
                await exited_with_7(other, container)
            print(f"replica killed: an end that nobody asked for is known after {time.monotonic() - since:.2f} s")
            await victim.api.start()
            for node in three.machines:
                await again_and_again(partial(live, victim, node), since=since)


async def test_the_leader_of_etcd(three: Cluster) -> None:
    async with unharmed(three) as acknowledged:
        leader = three.etcd.leader()
        acknowledged += await interrupted(asyncio.to_thread(leader.kill), three.one, "")
        since = time.monotonic()
        for number, replica in enumerate(three.replicas, 1):
            taken = await again_and_again(partial(live, replica, "n1"), since=since)
            print(f"leader of etcd killed: api{number} serves after {taken:.2f} s")
        await asyncio.to_thread(three.etcd.start, leader)


async def test_an_executor(three: Cluster) -> None:
    """Its containers go on, one ends meanwhile; other nodes do not notice."""
    machine = three.machines["n3"]
    async with unharmed(three) as acknowledged:
        ending = await run_on(three.one, "n3", "ends", *UNTIL_TOLD, network=NETWORK)
        acknowledged += await interrupted(machine.executor.kill(), three.one, "n3")
        since = time.monotonic()
        await end_unseen(three.one, ending)
        node = await three.until("n3", UNREACHABLE)
        print(f"executor killed: known after {time.monotonic() - since:.2f} s: {node.state_reason}")
        for replica in three.replicas:
            stop = pb.StopContainerRequest(container="stays-n3", timeout=0)
            refusal = await refused(replica.containers.StopContainer(stop, timeout=30))
            assert refusal.code is grpc.StatusCode.UNAVAILABLE
            await live(replica, "n2")
        since = time.monotonic()
        await machine.executor.start()
        taken = await again_and_again(partial(live, three.other, "n3"), since=since)
        print(f"executor started again: it serves after {taken:.2f} s")
        await exited_with_7(three.one, ending)


async def test_a_whole_node(three: Cluster, tmp_path: Path) -> None:
    """What may run elsewhere does, once; how the others ended is not invented."""
    machine, beats = three.machines["n3"], Beats(tmp_path / "beats")
    async with unharmed(three, but=["n3"]):
        binds = [f"{beats.directory}:/beats"]
        web = await three.run_movable("n3", "web", *serving("web", BEATING), network=NETWORK, binds=binds)
        await beats.until_runs(1)
        assert await fetched(three.one, "n1", "web") == ["web"]
        with machine.cut_off():
            three.member(machine).kill()
            await machine.power_off()
            since = time.monotonic()
            await three.until("n3", UNREACHABLE, LOST)
            print(f"node killed: it is known to be unreachable after {time.monotonic() - since:.2f} s")
            for replica in three.replicas:
                await again_and_again(partial(live, replica, "n2"), since=since)
            await three.until("n3", LOST)
            print(f"node killed: its loss is known after {time.monotonic() - since:.2f} s")
            there = await three.runs_elsewhere(web, "n3")
            await beats.until_runs(2)
            assert await fetched(three.one, "n2" if there == "n1" else "n1", "web") == ["web"]
            print(f"node killed: its container runs elsewhere after {time.monotonic() - since:.2f} s")
        await asyncio.gather(machine.executor.start(), asyncio.to_thread(three.etcd.start, three.member(machine)))
        await three.until("n3", READY)
        assert not (await three.other.inspect("stays-n3")).state.running
        await all_equal(three)
        assert len(beats.runs()) == 2
        assert beats.never_twice()


async def test_a_node_and_the_replica_that_follows_it(three: Cluster, tmp_path: Path) -> None:
    """At the same moment: the other one takes over, knows of the loss when the lease of the node is over for sure, and
    places what may run elsewhere once."""
    machine, victim, beats = three.machines["n3"], await three.follower("n3"), Beats(tmp_path / "beats")
    other = three.beside(victim)
    async with unharmed(three, but=["n3"]):
        binds = [f"{beats.directory}:/beats"]
        web = await three.run_movable("n3", "web", *serving("web", BEATING), network=NETWORK, binds=binds)
        await beats.until_runs(1)
        with machine.cut_off():
            await asyncio.gather(machine.power_off(), victim.api.kill())
            since = time.monotonic()
            await three.until("n3", LOST, through=other)
            print(f"node and its API killed: the loss is known after {time.monotonic() - since:.2f} s")
            there = await three.runs_elsewhere(web, "n3", through=other)
            await beats.until_runs(2)
            print(f"node and its API killed: its container runs elsewhere after {time.monotonic() - since:.2f} s")
            assert await fetched(other, "n2" if there == "n1" else "n1", "web") == ["web"]
            assert len(beats.runs()) == 2
        await asyncio.gather(victim.api.start(), machine.executor.start())
        await three.until("n3", READY, through=other)
        await all_equal(three)
        assert await moves(other, web) == [there]
        assert beats.never_twice()


async def moves(engine: Slipway, container: str) -> list[str]:
    """Where to, each time it was moved."""
    now = Timestamp()
    now.GetCurrentTime()
    request = system_pb.StreamEventsRequest(since=Timestamp(), until=now, container=[container], action=["move"])
    told = engine.system.StreamEvents(request, timeout=10)
    return [item.event.attributes["node.new"] async for item in told]
