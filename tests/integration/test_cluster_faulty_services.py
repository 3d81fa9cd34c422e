"""Services of a cluster with one fault: clocks that are minutes apart, an executor of another version, journals that no
sound executor tells. Whatever it is, no container is lost or doubled, and no record is wrong."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import system_service_pb2 as system_pb

from common.protocol_version import OURS
from tests.fixtures.api import refused
from tests.fixtures.cluster import (
    LEASE,
    LOST,
    PATIENCE,
    READY,
    UNREACHABLE,
    UNTIL_TOLD,
    Cluster,
    again_and_again,
    end_unseen,
    exited_with_7,
    live,
    run_on,
)
from tests.fixtures.cluster_crew import unharmed
from tests.fixtures.cluster_records import all_equal
from tests.fixtures.slipway import Service, Slipway

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

MINUTES = 600  # seconds
LIFE = ("create", "connect", "start", "die", "disconnect", "destroy")  # what there is to tell of one


@asynccontextmanager
async def gone_wrong(service: Service, fault: str) -> AsyncIterator[None]:
    """Killed, and then another program: see `service_gone_wrong`."""
    module, arguments = service.module, service.arguments
    await service.kill()
    service.module, service.arguments = "tests.fixtures.service_gone_wrong", [fault, module, *arguments]
    try:
        await service.start()
        yield
    finally:
        await service.kill()
        service.module, service.arguments = module, arguments
        await service.start()


async def told(engine: Slipway, container: str) -> Mapping[str, int]:
    """How often what of a container that was removed."""
    request = system_pb.StreamEventsRequest(container=[container], since=Timestamp(seconds=1))
    actions: list[str] = []
    async for answer in engine.system.StreamEvents(request, timeout=PATIENCE):
        actions.append(answer.event.action)
        if actions[-1] == "destroy":
            break
    return Counter(actions)


async def begun(engine: Slipway, node: str) -> str:
    """As soon as something can be placed there: not while a journal in disorder is followed from where it was sound."""
    box = ""

    async def begin() -> None:
        nonlocal box
        box = await run_on(engine, node, "", *UNTIL_TOLD)

    await again_and_again(begin, since=time.monotonic())
    return box


async def a_life(three: Cluster, asked: Slipway, node: str) -> None:
    """Both API services see the same of it, and so whoever asks for its events."""
    box = await begun(asked, node)
    await end_unseen(asked, box)
    for replica in three.replicas:
        await exited_with_7(replica, box)
    await asked.remove(box)
    for replica in three.replicas:
        assert await told(replica, box) == dict.fromkeys(LIFE, 1)


@pytest.mark.parametrize("ahead", [MINUTES, -MINUTES])
async def test_an_executor_with_another_time(three: Cluster, ahead: int) -> None:
    async with unharmed(three), gone_wrong(three.machines["n3"].executor, f"clock={ahead}"):
        await three.until("n3", READY)
        for replica in three.replicas:
            await a_life(three, replica, "n3")
        box = await run_on(three.one, "n3", "", "sleep", "1000")
        began = (await three.other.inspect(box)).state.started_at.ToSeconds()
        assert abs(began - time.time() - ahead) < PATIENCE
        await all_equal(three)


@pytest.mark.parametrize("journal", ["twice", "disordered"])
async def test_an_executor_with_an_unsound_journal(three: Cluster, journal: str) -> None:
    executor = three.machines["n3"].executor
    before = executor.log.read_text().count("gone wrong")
    async with unharmed(three), gone_wrong(executor, f"journal={journal}"):
        await three.until("n3", READY)
        for replica in three.replicas:
            await a_life(three, replica, "n3")
            await again_and_again(partial(live, replica, "n3"), since=time.monotonic())  # which ends as it begins
        await all_equal(three)
        assert executor.log.read_text().count("gone wrong") > before


@pytest.mark.parametrize("ahead", [MINUTES, -MINUTES])
async def test_an_api_service_with_another_time(three: Cluster, ahead: int) -> None:
    async with unharmed(three), gone_wrong(three.one.api, f"clock={ahead}"):
        for replica in three.replicas:
            await a_life(three, replica, "n3")
        await all_equal(three)


async def test_leases_know_no_time_of_day(three: Cluster) -> None:
    """What may run elsewhere stays where it is, though the clocks of its node and of an API service are far apart."""
    executor, api = three.machines["n3"].executor, three.one.api
    async with (
        unharmed(three),
        gone_wrong(executor, f"clock={MINUTES}"),
        gone_wrong(api, f"clock={-MINUTES}"),
    ):
        await three.until("n3", READY)
        box = ""

        async def run() -> None:
            nonlocal box
            box = await three.run_movable("n3", "", "sleep", "1000")

        # Not before the node has its lease again: the API service that is new may have been the one that renewed it.
        await again_and_again(run, since=time.monotonic())
        before = (await three.one.inspect(box)).state
        await asyncio.sleep(2 * LEASE)
        after = await three.other.inspect(box)
        assert (after.node, after.state.running, after.state.pid) == ("n3", True, before.pid)


async def test_an_executor_of_another_version(three: Cluster) -> None:
    """Nothing is asked of it, and its containers run on."""
    async with unharmed(three):
        async with gone_wrong(three.machines["n3"].executor, f"protocol={OURS.latest + 1}"):
            async with asyncio.timeout(PATIENCE):
                while "upgrade the API service" not in (node := await three.node("n3")).state_reason:
                    await asyncio.sleep(0.05)
            assert node.state in (UNREACHABLE, LOST)
            for replica in three.replicas:
                request = pb.StopContainerRequest(container="stays-n3", timeout=0)
                said = await refused(replica.containers.StopContainer(request, timeout=30))
                assert (said.code, said.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NODE_INCOMPATIBLE")
                assert (await replica.inspect("stays-n3")).state.running
                await live(replica, "n2")
        await three.until("n3", READY)
        await live(three.other, "n3")
