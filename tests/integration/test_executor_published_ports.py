"""Ports published and unpublished while a container runs, and the executor killed or short of something at each step of
that: leases, rules and record agree, and say all of it or nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing

import grpc
import pytest
import pytest_asyncio
from slipway.executor.v1 import container_spec_pb2 as spec_pb
from slipway.executor.v1 import runtime_service_pb2 as pb

from tests.fixtures.executor import ExecutorProcess, executor_process
from tests.fixtures.netns import command

pytestmark = pytest.mark.asyncio(loop_scope="module")

_STEPS = [f"{step}:{when}" for step in ("ports", "updated") for when in ("before", "after")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[ExecutorProcess]:
    async with executor_process(faulty=True) as process:
        yield process


def _port(number: int = 0, *, to: int = 80) -> spec_pb.PublishedPort:
    return spec_pb.PublishedPort(
        host_port=number, host_port_last=number, container_port=to, protocol=spec_pb.PORT_PROTOCOL_TCP
    )


async def _update(executor: ExecutorProcess, box: str, *ports: spec_pb.PublishedPort) -> pb.JournalEntry:
    request = pb.UpdateContainerRequest(container_id=box, published_ports=ports)
    return (await executor.runtime.UpdateContainer(request, timeout=30)).entry


async def _end(executor: ExecutorProcess, box: str) -> None:
    """Its process, and what its end leaves."""
    request = pb.StopContainerRequest(container_id=box, signal=9, timeout=5)
    await executor.runtime.StopContainer(request, timeout=30)
    # Waits for the cleanup, which has the container's lock.
    await _update(executor, box, _port())


def _leased(executor: ExecutorProcess, box: str) -> set[tuple[int, int, str]]:
    """(port of the host, port of the container, target) of the leases that lead somewhere."""
    with closing(sqlite3.connect(executor.paths.database)) as database:
        rows = database.execute(
            "SELECT host_port, container_port, target FROM port_leases WHERE container_id = ? AND target != ''", (box,)
        )
        return set(rows)


def _led(executor: ExecutorProcess) -> set[tuple[int, int, str]]:
    """The same as the kernel has it, whoever's."""
    found = set()
    for family in ("ports4", "ports6"):
        table = f"slipway_{executor.instance}".replace("-", "_")
        listed = command("nft", "list", "map", "inet", table, family).partition("elements = {")[2].partition("}")[0]
        for element in filter(None, (part.strip() for part in listed.split(","))):
            key, _, value = element.partition(" : ")
            address, _, port = value.rpartition(" . ")
            found.add((int(key.split(" . ")[1]), int(port), address))
    return found


async def _told(executor: ExecutorProcess, box: str) -> set[tuple[int, int]]:
    """(port of the host, port of the container), as a snapshot tells them."""
    snapshot = await executor.snapshot(box)
    assert snapshot is not None
    return {(port.host_port, port.container_port) for port in snapshot.started.started.ports}


async def _agreed(executor: ExecutorProcess, box: str) -> set[tuple[int, int]]:
    leased = _leased(executor, box)
    assert leased == _led(executor)
    told = await _told(executor, box)
    assert {(number, to) for number, to, _ in leased} == told
    assert len(leased) == 2 * len(told)  # both families
    return told


async def test_ports_come_and_go_while_it_runs_and_stay_for_its_next_start(executor: ExecutorProcess) -> None:
    box = await executor.create()
    await executor.run(box)
    [(chosen, _)] = await _agreed(executor, box)
    entry = await _update(executor, box, _port(), _port(8300, to=81))
    assert {port.host_port for port in entry.updated.published.ports} == {chosen, 8300}
    assert await _agreed(executor, box) == {(chosen, 80), (8300, 81)}
    again = await _update(executor, box, _port(), _port(8300, to=81))
    assert not again.updated.HasField("published")
    await _update(executor, box, _port(8300, to=81))
    assert await _agreed(executor, box) == {(8300, 81)}
    await _update(executor, box)
    assert await _agreed(executor, box) == set()
    await _update(executor, box, _port(), _port(8301, to=82))
    assert await _agreed(executor, box) == {(chosen, 80), (8301, 82)}
    await _end(executor, box)
    assert _led(executor) == set()
    assert not (await _update(executor, box, _port(8302, to=82), _port())).updated.published.ports
    await executor.run(box, "s2")
    assert await _agreed(executor, box) == {(chosen, 80), (8302, 82)}


async def test_a_port_that_is_taken_leaves_everything_as_it_was(executor: ExecutorProcess) -> None:
    box, holder = await executor.create(), await executor.create()
    await executor.run(box)
    before = await _agreed(executor, box)
    await executor.run(holder)
    [(taken, _)] = await _told(executor, holder)
    led = _led(executor)
    with pytest.raises(grpc.aio.AioRpcError, match=f"by container '{holder}'") as refused:
        await _update(executor, box, _port(8303, to=81), _port(taken, to=82))
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert (await _told(executor, box), _led(executor)) == (before, led)
    await _end(executor, holder)
    # Nobody uses it now, so it gives way; what is refused then comes back to whom it was chosen for.
    assert executor.faults is not None
    executor.faults.arm("updated:before", "shortage")
    with pytest.raises(grpc.aio.AioRpcError):
        await _update(executor, box, _port(taken, to=82))
    assert await _agreed(executor, box) == before
    await executor.run(holder, "s2")
    assert await _told(executor, holder) == {(taken, 80)}


async def test_what_is_short_leaves_everything_as_it_was(executor: ExecutorProcess) -> None:
    assert executor.faults is not None
    box = await executor.create()
    await executor.run(box)
    before = await _agreed(executor, box)
    for step in ("ports:before", "ports:after", "updated:before"):
        executor.faults.arm(step, "shortage")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _update(executor, box, _port(8304))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, step
        assert await _agreed(executor, box) == before, step
    await _update(executor, box, _port(8304))
    assert await _agreed(executor, box) == {(8304, 80)}


@pytest.mark.parametrize("point", _STEPS)
async def test_an_executor_that_is_killed_has_published_all_or_nothing(executor: ExecutorProcess, point: str) -> None:
    assert executor.faults is not None
    box = await executor.create()
    await executor.run(box)
    before = await _agreed(executor, box)
    executor.faults.arm(point, "kill")
    with pytest.raises(grpc.aio.AioRpcError):
        await _update(executor, box, _port(8305, to=81))
    await executor.ended()
    await executor.start()
    assert await _agreed(executor, box) == ({(8305, 81)} if point == "updated:after" else before)
    await _update(executor, box, _port(8305, to=81))
    assert await _agreed(executor, box) == {(8305, 81)}


async def test_leases_that_are_not_as_the_record_says_are_put_right(executor: ExecutorProcess) -> None:
    box = await executor.create()
    await executor.run(box)
    before = await _agreed(executor, box)
    await executor.kill()
    with closing(sqlite3.connect(executor.paths.database)) as database, database:
        database.execute("UPDATE port_leases SET target = '10.9.9.9' WHERE host_ip = '0.0.0.0'")
        database.execute("DELETE FROM port_leases WHERE host_ip = '::'")
    await executor.start()
    assert await _agreed(executor, box) != set()
    assert executor.events("published ports are put right")
    entries = [entry.WhichOneof("event") for entry in await executor.entries(box)]
    assert entries == ["started", "updated"]
    assert before
