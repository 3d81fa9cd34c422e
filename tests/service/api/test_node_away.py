"""The executor is down, comes back, lost its journal or its containers; the API service restarts over its own store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from slipway.executor.v1 import node_service_pb2 as node_pb
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import image_service_pb2 as image_pb2
from slipway.v1 import system_service_pb2 as system_pb2

from tests.fixtures.api import Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.store import ON_ETCD


@pytest.fixture
async def lonely(tmp_path: Path, executor: FakeExecutor) -> AsyncIterator[Api]:
    """A running and a created container, and the executor gone."""
    async with running_api(tmp_path, executor) as api:
        await api.load()
        await api.run(name="web")
        await api.create(name="db")
        await executor.down()
        await api.away()
        yield api


async def test_reads_work(lonely: Api) -> None:
    assert (await lonely.inspect("web")).state.running
    assert await lonely.names() == ["db", "web"]
    assert len((await lonely.images.ListImages(image_pb2.ListImagesRequest())).images) == 1
    assert not (await lonely.wait("db")).HasField("exit_code")
    assert "container start" in await lonely.actions()
    info = await lonely.system.GetInfo(system_pb2.GetInfoRequest())
    assert (info.containers, info.nodes[0].available) == (2, False)
    assert "does not answer" in info.nodes[0].error
    version = await lonely.system.GetVersion(system_pb2.GetVersionRequest())
    assert not version.nodes[0].available


async def test_rename_and_tag_work(lonely: Api) -> None:
    await lonely.containers.RenameContainer(pb2.RenameContainerRequest(container="web", new_name="api"))
    await lonely.images.TagImage(image_pb2.TagImageRequest(image="busybox", target="tools"))
    assert (await lonely.inspect("api")).state.running


@pytest.mark.parametrize(
    "verb", ["create", "start", "stop", "kill", "restart", "remove", "force_remove", "logs", "load", "rmi", "df"]
)
async def test_writes_say_what_to_do(lonely: Api, verb: str) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "create": lambda: lonely.create(name="new"),
        "start": lambda: lonely.start("db"),
        "stop": lambda: lonely.stop("web"),
        "kill": lambda: lonely.containers.KillContainer(pb2.KillContainerRequest(container="web")),
        "restart": lambda: lonely.containers.RestartContainer(pb2.RestartContainerRequest(container="web")),
        "remove": lambda: lonely.remove("db"),
        "force_remove": lambda: lonely.remove("web", force=True),
        "logs": lambda: anext(aiter(lonely.containers.StreamLogs(pb2.StreamLogsRequest(container="web")))),
        "load": lonely.load,
        "rmi": lambda: lonely.images.RemoveImage(image_pb2.RemoveImageRequest(image="busybox", force=True)),
        "df": lambda: lonely.system.GetDiskUsage(system_pb2.GetDiskUsageRequest()),
    }
    if verb == "rmi":
        await lonely.executor.up()
        await lonely.followed()
        await lonely.remove("web", force=True)
        await lonely.remove("db")
        await lonely.executor.down()
    refusal = await refused(calls[verb]())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "NODE_UNAVAILABLE")
    assert refusal.retry_after
    assert "node 'local'" in refusal.message
    assert lonely.executor.address in refusal.message
    assert "python -m executor_service" in refusal.message
    if verb in ("start", "stop", "kill", "restart", "remove", "force_remove"):
        # Nothing changed: the containers are what they were.
        assert (await lonely.inspect("web")).state.status == container_pb2.CONTAINER_STATUS_RUNNING
        assert (await lonely.inspect("db")).state.status == container_pb2.CONTAINER_STATUS_CREATED
    if verb == "create":
        assert await lonely.names() == ["db", "web"]


async def test_what_happened_meanwhile_is_told(lonely: Api) -> None:
    container_id = (await lonely.inspect("web")).id
    lonely.executor.exit(container_id, 9)
    assert (await lonely.inspect("web")).state.running
    await lonely.executor.up()
    assert (await lonely.wait("web")).exit_code == 9
    assert (await lonely.actions(container=["web"]))[-1] == "container die"


async def test_an_executor_that_comes_back_is_asked_anew_what_it_is(lonely: Api) -> None:
    lonely.executor.user_mapping = node_pb.UserMapping(first_uid=100000, first_gid=100000, count=65536)
    await lonely.executor.up()
    await lonely.followed()
    container_id = await lonely.create(name="remapped")
    assert lonely.executor.containers[container_id].spec.remapped


async def test_service_starts_and_reads_without_its_executor(tmp_path: Path, executor: FakeExecutor) -> None:
    async with running_api(tmp_path, executor) as api:
        await api.load()
        await api.run(name="web")
    await executor.down()
    async with running_api(tmp_path, executor, connected=False) as api:
        assert (await api.inspect("web")).state.running
        assert (await refused(api.stop("web"))).code == grpc.StatusCode.UNAVAILABLE
        await executor.up()
        await api.followed()
        await api.stop("web")


async def test_events_go_on_over_a_restart(tmp_path: Path, executor: FakeExecutor) -> None:
    """Nothing missed, nothing doubled, whatever happened while the service was away."""
    async with running_api(tmp_path, executor) as api:
        await api.load()
        first = await api.run(name="one")
        second = await api.run(name="two", auto_remove=True)
        before = await api.events(7)
    executor.exit(first, 3)
    executor.exit(second, 4)
    async with running_api(tmp_path, executor) as api:
        await api.gone(second)
        assert (await api.inspect("one")).state.exit_code == 3
        after = await api.events(5, cursor=before[-1].cursor)
        assert sorted(f"{item.event.action} {item.event.attributes.get('name')}" for item in after) == [
            "destroy two", "die one", "die two", "disconnect bridge", "disconnect bridge",
        ]  # fmt: skip
        everything = await api.actions()
        assert len(everything) == 12
    async with running_api(tmp_path, executor) as api:
        assert await api.actions() == everything


async def test_killed_service_repeats_no_event(tmp_path: Path, executor: FakeExecutor) -> None:
    """The journal's position is saved now and then: what is read again is recognised."""
    async with running_api(tmp_path, executor) as api:
        await api.load()
        await api.run(name="web")
        await api.stop("web")
        everything = await api.actions()
        follower = api.engine.nodes.get("local").follower
        follower._saved = follower._position  # as if killed: the end saves nothing
    executor.calls.clear()
    async with running_api(tmp_path, executor) as api:
        assert api.engine.nodes.get("local").follower.journal_id == "journal-1"
        assert await api.actions() == everything
        assert (await api.inspect("web")).state.exit_code == 143


async def test_leftovers_of_a_killed_service_are_swept(tmp_path: Path, executor: FakeExecutor) -> None:
    async with running_api(tmp_path, executor) as api:
        await api.load()
        gone = await api.create(name="gone")
        executor.fault("RemoveContainer", lost=True)
        await refused(api.remove("gone"))
        executor.fault("CreateContainer", gate=asyncio.Event())
        call = api.containers.CreateContainer(
            pb2.CreateContainerRequest(
                name="half", request_id="k", config=container_pb2.ContainerConfig(image="busybox", cmd=["x"])
            )
        )
        await executor.until(lambda: executor.calls.count("CreateContainer") == 2)
        [half] = api.engine.creating
        api.engine.jobs._closed = True  # as if killed: nothing is undone any more
    assert call.done() or call.cancel()
    async with running_api(tmp_path, executor) as api:
        await api.gone(gone)
        await api.gone(half)
        assert await api.create(name="half")
        assert await api.create(name="gone")


@pytest.mark.skipif(ON_ETCD, reason="removes the file of the embedded store")
async def test_never_started_container_nobody_knows_is_removed_and_others_are_not(
    tmp_path: Path, executor: FakeExecutor
) -> None:
    async with running_api(tmp_path, executor) as api:
        await api.load()
        never, ran, runs = await api.create(), await api.run(), await api.run()
        executor.exit(ran)
        await api.wait(ran)
    (tmp_path / "api.db").unlink()
    async with running_api(tmp_path, executor) as api:
        await executor.until(lambda: never not in executor.containers)
        assert set(executor.containers) == {ran, runs}
        assert executor.containers[runs].running
        assert await api.names() == []
        # The images are the node's; a new store learns of them.
        await executor.until(lambda: "ListImages" in executor.calls)
        async with api.engine.image_changes:
            assert await api.engine.images.named("busybox:latest") is not None


@pytest.mark.parametrize("how", ["new journal", "trimmed"])
async def test_snapshot_when_the_journal_cannot_tell(tmp_path: Path, executor: FakeExecutor, how: str) -> None:
    async with running_api(tmp_path, executor) as api:
        await api.load()
        ended, lost = await api.run(name="ended"), await api.run(name="lost")
        failed, fresh = await api.create("missing", name="failed"), await api.create(name="fresh")
        await api.create(name="idle")
        await api.run(name="runs")
    executor.exit(ended, 5)
    executor.start(executor.containers[fresh], "by-somebody")
    executor.start(executor.containers[failed], "by-somebody")
    del executor.containers[lost]
    if how == "trimmed":
        executor.trim_journal()
    else:
        executor.new_journal()
    async with running_api(tmp_path, executor) as api:
        states = {
            name: (await api.inspect(name)).state for name in ("ended", "runs", "failed", "fresh", "idle", "lost")
        }
        assert (states["ended"].running, states["ended"].exit_code) == (False, 5)
        assert states["runs"].running
        assert states["fresh"].running
        assert (states["failed"].status, states["failed"].exit_code) == (container_pb2.CONTAINER_STATUS_CREATED, 127)
        assert states["idle"].status == container_pb2.CONTAINER_STATUS_CREATED
        assert not states["lost"].running
        assert not states["lost"].HasField("exit_code")
        assert "no longer knows" in states["lost"].error
        assert await api.actions(container=["ended"], action=["die"]) == ["container die"]
        assert await api.actions(container=["fresh"], action=["start"]) == ["container start"]
        await api.stop("runs")
        assert await api.actions(container=["runs"], action=["die"]) == ["container die"]
        assert (await api.inspect("runs")).state.exit_code == 143


async def test_broken_container_can_only_be_removed(tmp_path: Path, executor: FakeExecutor) -> None:
    async with running_api(tmp_path, executor) as api:
        await api.load()
        container_id = await api.create(name="web")
    executor.containers[container_id].broken = "its record is unreadable"
    executor.new_journal()
    async with running_api(tmp_path, executor) as api:
        state = (await api.inspect("web")).state
        assert (state.status, state.error) == (container_pb2.CONTAINER_STATUS_DEAD, "its record is unreadable")
        await api.remove("web")
        assert executor.containers == {}
