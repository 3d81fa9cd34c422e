"""Random verbs against the model of the state machine, over a fake executor: whatever came before, the table holds,
record and node agree."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import container_service_pb2_grpc as container_rpc
from slipway.v1 import exec_service_pb2_grpc as exec_rpc

from tests.fixtures.api import Api, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.state_walk import (
    ALIVE,
    ENDS,
    EXECUTOR_LOST,
    FAILS_TO_START_AGAIN,
    IS_STARTED_AGAIN,
    RUNS,
    WAITS,
    Model,
    examples,
    steps,
    walk,
)


@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps(at_most=25))
def test_walk(way: list[str]) -> None:
    asyncio.run(_walk(way))


async def _walk(way: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="slw-") as name:
        directory = Path(name)
        async with (
            FakeExecutor(directory / "executor.sock").serving() as executor,
            running_api(directory, executor) as api,
        ):
            await api.load()
            await walk(_FakeWorld(api), way)
            assert executor.containers == {}


@dataclass(slots=True)
class _FakeWorld:
    api: Api

    @property
    def containers(self) -> container_rpc.ContainerServiceStub:
        return self.api.containers

    @property
    def execs(self) -> exec_rpc.ExecServiceStub:
        return self.api.execs

    def program(self) -> pb.CreateContainerRequest:
        return pb.CreateContainerRequest(config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]))

    async def by_itself(self, container_id: str, step: str, after: str) -> None:
        executor = self.api.executor
        if step in ENDS:
            executor.exit(container_id, ENDS[step], restart_in=None if after not in (RUNS, WAITS) else 60)
        if step == IS_STARTED_AGAIN or (step in ENDS and after == RUNS):
            executor.restart(container_id)
        if step == FAILS_TO_START_AGAIN:
            executor.restart(container_id, fails=True)
        if step == EXECUTOR_LOST:
            await self._another_journal()
        await self.api.followed()

    async def _another_journal(self) -> None:
        executor = self.api.executor
        await executor.down()
        executor.new_journal()
        await executor.up()
        follower = self.api.engine.nodes.get("local").follower
        async with asyncio.timeout(60):
            while not (follower.connected and follower.journal_id == executor.journal_id):
                await follower.changed()

    async def agrees(self, container: container_pb2.Container, model: Model) -> None:
        fake = self.api.executor.containers[container.id]
        assert fake.running is (model.state in ALIVE)
        assert fake.restarting is (model.state == WAITS)
