"""Two API services over one etcd and one executor: a request may go to either, and one of them may die."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import system_service_pb2 as system_pb

from api_service.nodes.registry import _JOURNAL_PATIENCE
from tests.fixtures.etcd import EtcdCluster, etcd_cluster
from tests.fixtures.slipway import Service, Slipway, installed

_PATIENCE = 60.0  # seconds until a test that waits has failed
WAITING = ("sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do usleep 10000; done")


@dataclass(slots=True, kw_only=True)
class Replicas:
    """One installation seen through each of its API services."""

    one: Slipway
    other: Slipway
    etcd: EtcdCluster

    def follower(self) -> Slipway:
        """The one that follows the node's journal."""
        holder = self._holder()
        for each in (self.one, self.other):
            if holder == _replica_of(each):
                return each
        raise AssertionError(f"nobody follows: {holder!r}")

    async def followed_by(self, engine: Slipway) -> None:
        """Until it follows the node's journal."""
        async with asyncio.timeout(_PATIENCE):
            while await asyncio.to_thread(self._holder) != _replica_of(engine):
                await asyncio.sleep(0.05)

    def _holder(self) -> str:
        """Empty when there is none just now."""
        claim = self.etcd.control("get", "--print-value-only", "/slipway/claims/journal/local")
        return str(json.loads(claim)["replica"]) if claim.strip() else ""

    def another(self, than: Slipway) -> Slipway:
        return self.other if than is self.one else self.one


def _replica_of(engine: Slipway) -> str:
    """As its log says when it begins to serve."""
    said = [json.loads(line) for line in engine.api.log.read_text().splitlines() if '"serving"' in line]
    replica: str = said[-1]["replica"]
    return replica


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    with etcd_cluster(tmp_path / "etcd") as cluster:
        yield cluster


@pytest.fixture
async def replicas(tmp_path: Path, etcd: EtcdCluster) -> AsyncIterator[Replicas]:
    store = ["--store", f"etcd://{','.join(etcd.endpoints)}"]
    async with installed(tmp_path, api=store) as one, AsyncExitStack() as stack:
        address = one.api.address.replace("api.sock", "api-2.sock")
        second = Service(
            module="api_service",
            arguments=[*one.api.arguments, "--listen", address],
            address=address,
            log=tmp_path / "second-api.log",
        )
        stack.push_async_callback(second.stop)
        await second.start()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        other = one.on(channel)
        other.api = second
        await other.node_back()
        yield Replicas(one=one, other=other, etcd=etcd)


async def actions(engine: Slipway, *, until: str, actor: str) -> list[str]:
    """What `actor` did, from its beginning, as this replica's stream tells it."""
    request = system_pb.StreamEventsRequest(since=Timestamp(seconds=1), type=["container"])
    call = engine.system.StreamEvents(request, timeout=_PATIENCE)
    seen: list[str] = []
    async for answer in call:
        if answer.event.actor_id == actor:
            seen.append(answer.event.action)
            if answer.event.action == until:
                call.cancel()
                return seen
    raise AssertionError(f"the stream ended: {seen}")


async def ready(engine: Slipway, container: str) -> None:
    async for line in engine.log_lines(container, follow=True):
        if line.data == b"ready\n":
            return


async def test_a_life_across_replicas(replicas: Replicas) -> None:
    one, other = replicas.one, replicas.other
    box = await one.create(*WAITING, name="box")
    following = [asyncio.create_task(actions(each, until="destroy", actor=box)) for each in (one, other)]
    await other.start("box")
    assert (await one.inspect("box")).state.running, "what was acknowledged there is seen here"
    await ready(one, box)
    waiting = asyncio.create_task(other.wait(box))
    await one.kill("box", "TERM")
    assert (await waiting).exit_code == 7
    assert (await one.inspect(box)).state.exit_code == 7
    await other.containers.RenameContainer(pb.RenameContainerRequest(container="box", new_name="case"))
    assert (await one.inspect("case")).id == box
    await one.remove("case")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await other.inspect("case")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    told = await asyncio.gather(*following)
    assert told[0] == told[1] == ["create", "start", "kill", "die", "rename", "destroy"]


async def test_each_verb_through_each_replica_is_not_slow(replicas: Replicas) -> None:
    """Whoever does not follow the journal waits for who does, and not for a time to pass: that would be a second, each
    time. On a busy machine some are slow, and not all of them."""
    for engine in (replicas.one, replicas.other):
        box = await engine.create("sleep", "600")
        stop = pb.StopContainerRequest(container=box, timeout=0)
        shortest = {"start": _PATIENCE, "stop": _PATIENCE}
        for verb in ("start", "stop") * 3:
            begun = time.monotonic()
            await (engine.start(box) if verb == "start" else engine.containers.StopContainer(stop))
            shortest[verb] = min(shortest[verb], time.monotonic() - begun)
        assert max(shortest.values()) < _JOURNAL_PATIENCE
        await engine.remove(box)


async def test_one_name_asked_of_both_has_one_winner(replicas: Replicas) -> None:
    async def create(engine: Slipway, name: str) -> str | None:
        try:
            return await engine.create("true", name=name)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS
            return None

    for number in range(10):
        asked = [create(each, f"n{number}") for each in (replicas.one, replicas.other) for _ in range(3)]
        outcomes = await asyncio.gather(*asked)
        [winner] = [each for each in outcomes if each is not None]
        assert {(await each.inspect(f"n{number}")).id for each in (replicas.one, replicas.other)} == {winner}


async def test_verbs_of_both_on_one_container_come_one_after_the_other(replicas: Replicas) -> None:
    box = await replicas.one.create("sleep", "60")

    async def turn(engine: Slipway) -> None:
        for _ in range(5):
            await engine.start(box)
            await engine.containers.StopContainer(pb.StopContainerRequest(container=box, timeout=0), timeout=_PATIENCE)

    await asyncio.gather(turn(replicas.one), turn(replicas.other))
    await replicas.one.start(box)
    told = await asyncio.gather(*(actions(each, until="start", actor=box) for each in (replicas.one, replicas.other)))
    assert told[0] == told[1]
    removals = [replicas.one.remove(box), replicas.other.remove(box)]
    await asyncio.gather(*removals, return_exceptions=True)
    for engine in (replicas.one, replicas.other):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await engine.inspect(box)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_when_the_follower_is_killed_another_takes_over(replicas: Replicas) -> None:
    follower = replicas.follower()
    left = replicas.another(follower)
    boxes = [await follower.run(*WAITING) for _ in range(3)]
    for box in boxes:
        await ready(left, box)
    cursor_of = left.system.StreamEvents(system_pb.StreamEventsRequest(since=Timestamp(seconds=1)), timeout=_PATIENCE)
    async for answer in cursor_of:
        if answer.event.action == "start" and answer.event.actor_id == boxes[-1]:
            cursor = answer.cursor
            break
    cursor_of.cancel()
    begun = time.monotonic()
    await follower.api.kill()
    assert (await left.inspect(boxes[0])).state.running, "requests are served by who is left"
    print(f"a request after {time.monotonic() - begun:.2f} s")
    waiting = [asyncio.create_task(left.wait(box)) for box in boxes]
    for box in boxes[:2]:
        await left.kill(box, "TERM")
    await left.kill(boxes[2], "KILL")
    codes = [(await asyncio.wait_for(task, _PATIENCE)).exit_code for task in waiting]
    print(f"all exit codes after {time.monotonic() - begun:.2f} s")
    assert codes == [7, 7, 137]
    await replicas.followed_by(left)
    died: list[str] = []
    call = left.system.StreamEvents(system_pb.StreamEventsRequest(cursor=cursor, type=["container"]), timeout=_PATIENCE)
    async for answer in call:
        if answer.event.action == "die":
            died.append(answer.event.actor_id)
            if len(died) == len(boxes):
                break
    call.cancel()
    assert sorted(died) == sorted(boxes)
    await follower.api.start()
    again = await follower.create("true")
    assert (await left.inspect(again)).id == again


async def test_what_a_killed_replica_had_begun_is_taken_back(replicas: Replicas) -> None:
    """The name of a create that nobody finishes is free again."""
    follower = replicas.follower()
    other = replicas.another(follower)
    creates = [asyncio.create_task(other.create("true", name=f"half-{number}")) for number in range(40)]
    await asyncio.wait(creates, return_when=asyncio.FIRST_COMPLETED)
    await other.api.kill()
    outcomes = await asyncio.gather(*creates, return_exceptions=True)
    made = {f"half-{number}": made for number, made in enumerate(outcomes) if isinstance(made, str)}
    async with asyncio.timeout(_PATIENCE):
        for number in range(40):
            name = f"half-{number}"
            if name in made:
                assert (await follower.inspect(name)).id == made[name], "what was acknowledged is there"
                continue
            while True:
                try:
                    await follower.create("true", name=name)
                    break
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
                    try:
                        await follower.inspect(name)  # it was finished, and the answer lost
                        break
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.2)
    await other.api.start()


async def test_without_etcd_reads_go_on_and_writes_say_why(replicas: Replicas) -> None:
    box = await replicas.one.run(*WAITING)
    [member] = replicas.etcd.members
    member.freeze()
    try:
        for engine in (replicas.one, replicas.other):
            assert (await engine.inspect(box)).state.running
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await engine.containers.StopContainer(pb.StopContainerRequest(container=box), timeout=_PATIENCE)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "etcd does not answer" in (caught.value.details() or "")
    finally:
        member.thaw()
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                await replicas.one.containers.StopContainer(pb.StopContainerRequest(container=box, timeout=0))
                break
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
        while (await replicas.other.inspect(box)).state.running:
            await asyncio.sleep(0.05)


async def test_services_begin_anew_on_a_store_that_was_restored(replicas: Replicas, tmp_path: Path) -> None:
    """They end by themselves, whoever runs them starts them again, and then records and node agree."""
    one, other, etcd = replicas.one, replicas.other, replicas.etcd
    kept = await one.create(*WAITING, name="kept")
    backup = tmp_path / "backup"
    etcd.control("snapshot", "save", str(backup))
    forgotten = await other.create(*WAITING, name="forgotten")
    await other.start("kept")
    for member in etcd.members:
        member.kill()
    etcd.restore(backup)
    await asyncio.to_thread(etcd.start)
    for engine in (one, other):
        await engine.api.ended()
        assert "a backup was restored" in engine.api.log.read_text()
        await engine.api.start()
    await one.node_back()
    async with asyncio.timeout(_PATIENCE):
        while not (await one.inspect(kept)).state.running:
            await asyncio.sleep(0.05)
    for engine in (one, other):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await engine.inspect(forgotten)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await other.remove("kept")
