"""A cluster whose parts do not reach each other for a while: each goes on with what it has, and catches up.

Every two of client, API, executor and etcd that have a connection, for ten seconds and for two minutes. (Clients have
none with executors or etcd, nor executors with etcd.) What does not touch each other is cut at the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb

from tests.fixtures.api import refused
from tests.fixtures.beats import BEATING, Beats
from tests.fixtures.cluster import (
    ETCD_PEER_PORT,
    ETCD_PORT,
    EXECUTOR_PORT,
    LOST,
    PATIENCE,
    READY,
    UNTIL_TOLD,
    Cluster,
    again_and_again,
    end_unseen,
    exited_with_7,
    live,
    run_on,
)
from tests.fixtures.cluster_client import broken_off, cursor_of, following_logs, reading, wait_again_and_again
from tests.fixtures.cluster_crew import NETWORK, ask, fetched, serving, unharmed
from tests.fixtures.slipway import Slipway

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SHORT, LONG = 10.0, 120.0  # seconds
Cut = Callable[[Cluster, Path, float], AsyncGenerator[None]]
"""Prepares what it needs up to its one `yield`, then cuts a link for so many seconds, mends it, and looks."""


async def unavailable(engine: Slipway, container: str) -> str:
    """What a request that cannot be served now is told."""
    request = pb.StopContainerRequest(container=container, timeout=0)
    refusal = await refused(engine.containers.StopContainer(request, timeout=40))
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    return refusal.message


async def rest_of(apart: float, *, since: float) -> None:
    await asyncio.sleep(max(0.0, since + apart - time.monotonic()))


async def a_node_from_everything(
    three: Cluster, directory: Path, apart: float, *, clients: slice = slice(None)
) -> AsyncGenerator[None]:
    """With a member of etcd. Long enough for it to be lost, and for what may run elsewhere to do so: it is found there
    by its name. `clients`: of the API services, those that are asked."""
    machine, beats, asked = three.machines["n3"], Beats(directory / "beats"), three.replicas[clients]
    binds = [f"{beats.directory}:/beats"]
    web = await three.run_movable("n3", "web", *serving("web", BEATING), network=NETWORK, binds=binds)
    ending = await run_on(three.one, "n3", "ends-cut-off", *UNTIL_TOLD, network=NETWORK)
    await beats.until_runs(1)
    assert await fetched(three.one, "n1", "web") == ["web"]
    yield
    with machine.cut_off():
        since = time.monotonic()
        await end_unseen(asked[-1], ending)
        for replica in asked:
            assert "n3" in await unavailable(replica, "stays-n3")
            await live(replica, "n1")
            assert (await replica.inspect("stays-n3")).state.running
        await three.until("n3", LOST, through=asked[-1])
        print(f"node cut off: its loss is known after {time.monotonic() - since:.2f} s")
        there = await three.runs_elsewhere(web, "n3", through=asked[-1])
        await beats.until_runs(2)
        print(f"node cut off: its container runs elsewhere after {time.monotonic() - since:.2f} s")
        assert await fetched(asked[-1], "n2" if there == "n1" else "n1", "web") == ["web"]
        await rest_of(apart, since=since)
    since = time.monotonic()
    await three.until("n3", READY, through=asked[-1])
    print(f"node there again: known after {time.monotonic() - since:.2f} s")
    for replica in asked:
        await three.until("n3", READY, through=replica)
        await live(replica, "n3")
        print(f"node there again: served through an API service after {time.monotonic() - since:.2f} s")
    await exited_with_7(asked[-1], ending)
    assert await fetched(asked[-1], "n3", "web") == ["web"]
    assert len(beats.runs()) == 2
    assert beats.never_twice()


async def an_api_from_etcd(three: Cluster, directory: Path, apart: float, *, number: int) -> AsyncGenerator[None]:
    """It shows what it knows; the other one follows the nodes."""
    cut = three.replicas[number]
    other, members = three.beside(cut), [machine.address for machine in three.machines.values()]
    ending = [await run_on(cut, node, f"ends-{node}", *UNTIL_TOLD) for node in three.machines]
    yield
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
        await rest_of(apart, since=since)
        assert "etcd" in await unavailable(cut, "stays-n1")
    since = time.monotonic()
    taken = await again_and_again(partial(live, cut, "n1"), since=since)
    print(f"API with etcd again: it serves after {taken:.2f} s")


async def an_api_from_an_executor(
    three: Cluster, directory: Path, apart: float, *, follows: bool
) -> AsyncGenerator[None]:
    """One that follows the node, or the other one. Who reaches it does follow it then, and what may run elsewhere stays
    where it is."""
    beats, follower = Beats(directory / "beats"), await three.follower("n3")
    cut = follower if follows else three.beside(follower)
    other = three.beside(cut)
    binds = [f"{beats.directory}:/beats"]
    web = await three.run_movable("n3", "web", "sh", "-c", BEATING, network=NETWORK, binds=binds)
    ending = await run_on(cut, "n3", "ends", *UNTIL_TOLD)
    stopping = await run_on(cut, "n3", "stops")
    yield
    with three.machine_of(cut).kept_from(port=EXECUTOR_PORT, addresses=[three.machines["n3"].address]):
        since = time.monotonic()
        saying = asyncio.create_task(unavailable(cut, "stays-n3"))
        await end_unseen(cut, ending)
        for replica in (other, cut):
            await exited_with_7(replica, ending)
            await three.until("n3", READY, through=replica)
        which = "that followed" if follows else "beside"
        print(f"API {which} an executor without it: all is known after {time.monotonic() - since:.2f} s")
        assert "n3" in await saying
        await live(cut, "n2")
        await other.containers.StopContainer(pb.StopContainerRequest(container=stopping, timeout=0), timeout=30)
        assert not (await cut.inspect(stopping)).state.running
        await live(other, "n3")
        assert await three.follower("n3") is other
        await rest_of(apart, since=since)
        assert (await three.node("n3", through=cut)).state == READY
        assert "n3" in await unavailable(cut, "stays-n3")
    since = time.monotonic()
    taken = await again_and_again(partial(live, cut, "n3"), since=since)
    print(f"API with the executor again: it serves after {taken:.2f} s")
    found = await other.inspect(web)
    assert (found.node, found.state.running) == ("n3", True)
    assert beats.never_twice()


async def executors_from_each_other(
    three: Cluster, directory: Path, apart: float, *, third: bool = True
) -> AsyncGenerator[None]:
    """Only what their containers say to each other is lost: they find each other again, and nobody else notices.
    `third`: a third one is there, and hears both."""
    engine, names = three.other, {"n1": "web-1", "n2": "web-2"}
    for node, name in names.items():
        await run_on(engine, node, name, *serving(name), network=NETWORK)
    assert await fetched(engine, "n1", "web-2") == ["web-2"]
    assert await fetched(engine, "n2", "web-1") == ["web-1"]
    yield
    with three.machines["n1"].out_of_touch_with(three.machines["n2"]):
        since = time.monotonic()
        asking = [await ask(engine, "n1", "web-2"), await ask(engine, "n2", "web-1")]
        if third:
            assert await fetched(engine, "n3", *names.values()) == list(names.values())
        for node in names:
            await live(engine, node)
        await rest_of(apart, since=since)
        for node, each in zip(names, asking, strict=True):
            assert (await engine.inspect(each)).state.running, "it was heard all the same"
            assert (await three.node(node, through=engine)).state == READY
    since = time.monotonic()
    for each, name in zip(asking, ("web-2", "web-1"), strict=True):
        assert (await engine.wait(each)).exit_code == 0
        assert (await engine.logs(each)).decode().split() == [name]
    print(f"overlay whole again: they hear each other after {time.monotonic() - since:.2f} s")


async def a_client_from_an_api(three: Cluster, directory: Path, apart: float) -> AsyncGenerator[None]:
    """A call under way ends by its deadline, and is there once when it is repeated; who waits goes on where it was. The
    service forgets who has been silent for long."""
    machine, here, there = three.machine_of(three.one), three.one, three.other
    ending = await run_on(here, "n2", "ends-alone", *UNTIL_TOLD)
    create = pb.CreateContainerRequest(
        name="once",
        config=container_pb2.ContainerConfig(image="busybox", cmd=["true"]),
        host_config=container_pb2.HostConfig(
            network_mode="none", placement=container_pb2.Placement(constraints=["node.name==n1"])
        ),
        request_id="asked before the link broke",
    )
    async with (
        following_logs(three, machine, "stays-n1"),
        reading([here, there], after=await cursor_of(here, ending)) as (reader, other_reader),
    ):
        waiting = asyncio.create_task(wait_again_and_again(here, ending))
        await asyncio.gather(*(each.until("start", ending) for each in (reader, other_reader)))
        before = broken_off(here.api, "StreamLogs")
        yield
        with machine.unheard_by_the_client():
            since = time.monotonic()
            creating = asyncio.create_task(refused(here.containers.CreateContainer(create, timeout=8)))
            made = (await _found(there, "once")).id
            with machine.deaf_to_the_client():
                assert (await creating).code is grpc.StatusCode.DEADLINE_EXCEEDED
                assert time.monotonic() - since < 8 + 8, "it took a link that is found dead"
                await end_unseen(there, ending)
                await live(there, "n2")
                assert (await three.node("n2", through=there)).state == READY
                await rest_of(apart, since=since)
                assert not waiting.done()
                assert broken_off(here.api, "StreamLogs") - before == (1 if apart == LONG else 0)
        since = time.monotonic()
        taken = await again_and_again(partial(live, here, "n1"), since=since)
        print(f"client reaches the API again: it is served after {taken:.2f} s")
        assert await asyncio.wait_for(waiting, 60) == 7
        for replica in three.replicas:
            assert (await replica.containers.CreateContainer(create, timeout=30)).id == made
        last = await run_on(there, "n1", "last")
        await asyncio.gather(*(each.until("start", last) for each in (reader, other_reader)))
        print(f"client reaches the API again: it knows all after {time.monotonic() - since:.2f} s")
        assert reader.seen == other_reader.seen
        assert other_reader.broken == 0
        assert [action for _, action, container in reader.seen if container == made] == ["create"]


async def _found(engine: Slipway, name: str) -> container_pb2.Container:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await engine.inspect(name)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)


async def members_of_etcd_from_each_other(
    three: Cluster, directory: Path, apart: float, *, only_the_leader: bool
) -> AsyncGenerator[None]:
    """One alone takes what it is asked, and can do nothing: whoever asks and watches there goes to another one. The
    leader first, then each, so that those that the API services have chosen are among them."""
    leader = three.etcd.leader()
    members = sorted(three.machines.values(), key=lambda machine: three.member(machine) is not leader)
    yield
    for alone in members[:1] if only_the_leader else members:
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
            await rest_of(apart, since=since)


FIRST, SECOND = 0, 1
CASES: dict[str, tuple[float, Sequence[Cut]]] = {
    "a node from everything": (SHORT, [a_node_from_everything]),
    "the first API from etcd": (SHORT, [partial(an_api_from_etcd, number=FIRST)]),
    "the second API from etcd": (SHORT, [partial(an_api_from_etcd, number=SECOND)]),
    "the API that follows an executor from it": (SHORT, [partial(an_api_from_an_executor, follows=True)]),
    "another API from an executor": (SHORT, [partial(an_api_from_an_executor, follows=False)]),
    "executors from each other": (SHORT, [executors_from_each_other]),
    "a client from an API": (SHORT, [a_client_from_an_api]),
    "members of etcd from each other": (SHORT, [partial(members_of_etcd_from_each_other, only_the_leader=False)]),
    "a node from everything and a client from an API": (
        LONG,
        [partial(a_node_from_everything, clients=slice(SECOND, None)), a_client_from_an_api],
    ),
    "an API from an executor, executors from each other, and the leader of etcd from the others": (
        LONG,
        [
            partial(an_api_from_an_executor, follows=True),
            partial(executors_from_each_other, third=False),
            partial(members_of_etcd_from_each_other, only_the_leader=True),
        ],
    ),
    "an API from etcd": (LONG, [partial(an_api_from_etcd, number=FIRST)]),
}


@pytest.mark.parametrize(("apart", "cuts"), CASES.values(), ids=[f"{name}, {CASES[name][0]:g} s" for name in CASES])
async def test_parts_that_do_not_reach_each_other(
    three: Cluster, tmp_path: Path, apart: float, cuts: Sequence[Cut]
) -> None:
    async with unharmed(three), AsyncExitStack() as stack:
        made = [await stack.enter_async_context(aclosing(cut(three, tmp_path, apart))) for cut in cuts]
        for each in made:
            await anext(each)
        async with asyncio.TaskGroup() as group:
            for each in made:
                group.create_task(_to_its_end(each))


async def _to_its_end(cut: AsyncIterator[None]) -> None:
    async for _ in cut:
        raise AssertionError("it yields once")


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
