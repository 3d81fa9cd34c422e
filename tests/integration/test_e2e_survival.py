"""Killing a service kills no container and loses no record, log line, exit code or event."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import system_service_pb2 as system_pb

from tests.fixtures.slipway import Slipway, installed

RUNNING, ENDING = 20, 5
# Says a number every 20 ms: a gap or a repetition in its log would show.
COUNTING = ("sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 20000; done")
# Waits for a word from us, then ends with the code it was given.
ENDING_WITH = "trap 'exit %d' TERM; echo ready; while :; do usleep 10000; done"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Slipway]:
    async with installed(tmp_path) as engine:
        yield engine


async def events_after(engine: Slipway, cursor: str, *, until: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """(action, actor) of what came after the cursor, until all of `until` was seen."""
    seen: list[tuple[str, str]] = []
    call = engine.system.StreamEvents(system_pb.StreamEventsRequest(cursor=cursor, type=["container"]), timeout=60)
    async for response in call:
        seen.append((response.event.action, response.event.actor_id))
        if until <= set(seen):
            break
    call.cancel()
    return seen


async def last_cursor(engine: Slipway, *, after: tuple[str, str]) -> str:
    call = engine.system.StreamEvents(
        system_pb.StreamEventsRequest(since=Timestamp(seconds=1), type=["container"]), timeout=30
    )
    async for response in call:
        if (response.event.action, response.event.actor_id) == after:
            call.cancel()
            return response.cursor
    raise AssertionError(f"no event {after}")


async def ready(engine: Slipway, container: str) -> None:
    async with contextlib.aclosing(engine.log_lines(container, follow=True)) as lines:
        async for line in lines:
            if line.data == b"ready\n":
                break


async def processes(engine: Slipway, containers: list[str]) -> dict[str, int]:
    return {container: (await engine.inspect(container)).state.pid for container in containers}


@pytest.mark.parametrize("victim", ["executor", "api", "both"])
async def test_twenty_run_on_and_five_end_while_a_service_is_dead(engine: Slipway, victim: str) -> None:
    running = list(await asyncio.gather(*(engine.run(*COUNTING) for _ in range(RUNNING))))
    ending = [await engine.run("sh", "-c", ENDING_WITH % (40 + number)) for number in range(ENDING)]
    await asyncio.gather(*(ready(engine, container) for container in ending))
    cursor = await last_cursor(engine, after=("start", ending[-1]))
    before = await processes(engine, [*running, *ending])
    dead = [engine.executor, engine.api] if victim == "both" else [getattr(engine, victim)]

    for service in dead:
        await service.kill()
    for container in ending:
        os.kill(before[container], signal.SIGTERM)
        await until_gone(Path(f"/proc/{before[container]}"))
    for service in dead:
        await service.start()

    codes = [(await engine.wait(container)).exit_code for container in ending]
    assert codes == [40 + number for number in range(ENDING)]
    assert await processes(engine, running) == {container: before[container] for container in running}
    listed = await engine.containers.ListContainers(pb.ListContainersRequest(), timeout=60)
    assert {container.id for container in listed.containers} == set(running)
    deaths = {("die", container) for container in ending}
    seen = await events_after(engine, cursor, until=deaths)
    assert sorted(event for event in seen if event[0] == "die") == sorted(deaths)
    await asyncio.gather(*(engine.kill(container) for container in running))
    for container in running:
        assert (await engine.wait(container)).exit_code == 137
        lines = (await engine.logs(container)).split()
        assert lines == [str(number).encode() for number in range(len(lines))]
    assert {(await engine.inspect(container)).state.status for container in running} == {
        container_pb2.CONTAINER_STATUS_EXITED
    }


async def until_gone(process: Path) -> None:
    """Ends with the test's own timeout when the process does not."""
    while process.exists():
        await asyncio.sleep(0.01)


async def create_when_free(engine: Slipway, name: str) -> None:
    """A create that the kill broke off holds its name until the new API has undone it, in the background."""
    while True:
        try:
            await engine.create("true", name=name)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def test_records_are_whole_after_the_api_is_killed_in_the_middle_of_many_creates(engine: Slipway) -> None:
    creates = [asyncio.ensure_future(engine.create("true", name=f"box-{number}")) for number in range(30)]
    await asyncio.wait(creates, return_when=asyncio.FIRST_COMPLETED)

    await engine.api.kill()
    await asyncio.wait(creates)
    acknowledged = {create.result() for create in creates if create.exception() is None}
    await engine.api.start()

    listed = await engine.containers.ListContainers(pb.ListContainersRequest(all=True), timeout=60)
    assert acknowledged <= {container.id for container in listed.containers}
    for number in range(30):
        name = f"box-{number}"
        if not any(container.name == name for container in listed.containers):
            await create_when_free(engine, name)
        await engine.start(name)
        assert (await engine.wait(name)).exit_code == 0


async def test_what_runs_can_be_stopped_and_removed_after_the_executor_was_killed(engine: Slipway) -> None:
    container = await engine.run("sleep", "300", init=False)
    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()

    await engine.containers.StopContainer(pb.StopContainerRequest(container=container, timeout=0), timeout=60)
    assert (await engine.wait(container)).exit_code == 137
    await engine.remove(container, force=False)

    listed = await engine.containers.ListContainers(pb.ListContainersRequest(all=True), timeout=60)
    assert not listed.containers
