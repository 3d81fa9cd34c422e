"""One record, image, event or node that is out of order keeps nothing else from its work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from slipway.executor.v1 import volume_store_service_pb2 as store_pb2
from slipway.v1 import container_pb2, mount_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import exec_service_pb2 as exec_pb2
from slipway.v1 import image_service_pb2 as image_pb2
from slipway.v1 import volume_service_pb2 as volume_pb2

from api_service.deadline import Deadline
from api_service.operations.container_stop import stop_container
from api_service.records.event import Event
from api_service.records.event_log import BEGINNING, EventLog
from api_service.records.event_shapes import container_event
from api_service.store.claims import LocalClaims
from api_service.store.sqlite_store import SqliteStore
from api_service.store.store import Put
from common.errors import DeadlineExceeded, ResourceExhausted
from tests.fixtures.api import Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.fake_executor.images import image_config


async def create_labelled(api: Api, name: str, size: int) -> str:
    """A container whose labels, which every event of it carries, have so many bytes."""
    labels = {f"{number:03}": "x" * 16_000 for number in range(size // 16_000)}
    config = container_pb2.ContainerConfig(image="busybox", cmd=["sleep"], labels=labels)
    return (await api.containers.CreateContainer(pb2.CreateContainerRequest(name=name, config=config))).id


async def test_entries_that_are_too_large_for_one_commit_are_written_one_by_one(
    api: Api, executor: FakeExecutor
) -> None:
    large = await create_labelled(api, "large", 400_000)
    await api.start(large)
    executor.paused = True
    for _ in range(8):
        executor.append(executor.containers[large], signaled={"signal": 10})
    executor.exit(large, 3)
    executor.resume()
    await api.followed()
    assert (await api.inspect("large")).state.exit_code == 3
    assert (await api.actions(type=["container"]))[-9:] == ["container kill"] * 8 + ["container die"]


async def test_an_entry_that_is_too_large_alone_is_taken_without_its_events(api: Api, executor: FakeExecutor) -> None:
    large = await create_labelled(api, "large", 600_000)
    await api.start(large)
    executor.exit(large, 137, oom=True)
    await api.followed()
    state = (await api.inspect("large")).state
    assert (state.exit_code, state.oom_killed) == (137, True)
    assert await api.run(name="next")


async def test_a_record_that_cannot_be_read(api: Api, executor: FakeExecutor) -> None:
    broken, _ = await api.run(name="broken"), await api.run(name="whole")
    store = api.engine.containers._store
    await store.commit(Put(key=f"containers/{broken}", value=b'{"id": 1}'))
    executor.exit(broken, 1)
    await api.followed()
    assert await api.names() == ["whole"]
    assert (await api.stop("whole")).already_stopped is False
    refusal = await refused(api.inspect(broken))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "RECORD_UNREADABLE")
    assert broken in refusal.message


async def fill(store: SqliteStore) -> None:
    """Until nothing new fits, and nothing that is there can grow."""
    held = {"fill/grows": b""}
    await store.commit(Put(key="fill/grows", value=b""))
    for key in (f"fill/{secrets.token_hex(8)}", "fill/grows"):
        for size in (2**power for power in range(18, -1, -1)):
            with contextlib.suppress(ResourceExhausted):
                while True:
                    value = held.get(key, b"") + bytes(size)
                    await store.commit(Put(key=key, value=value))
                    held[key] = value


@pytest.mark.parametrize("kept", [0, 300])
async def test_events_make_room_for_events_in_a_full_store(tmp_path: Path, api: Api, kept: int) -> None:
    """The first that happened go, whatever the clocks said."""
    record = await api.engine.containers.find(await api.create(name="web"))
    async with SqliteStore(tmp_path / "small.db", quota=512 * 1024, reserve=0) as store:
        events = EventLog(store)
        for number in range(kept):
            await events.add(container_event(record, f"kept {number}", 10_000 - number))
        await fill(store)
        if kept:
            await events.add(container_event(record, "last", 1))
            found = [event.action async for _, event in events.kept(after=BEGINNING)]
            assert found[-1] == "last"
            assert found[:-1] == [f"kept {number}" for number in range(kept - len(found) + 1, kept)]
            assert len(found) > kept / 2
        else:
            with pytest.raises(ResourceExhausted):
                await events.add(container_event(record, "last", 1))


async def test_what_happens_is_recorded_in_a_full_store(tmp_path: Path, executor: FakeExecutor) -> None:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(SqliteStore(tmp_path / "small.db", quota=256 * 1024, reserve=4096))
        api = await stack.enter_async_context(running_api(tmp_path, executor, store=(store, LocalClaims())))
        await api.load()
        box = await api.run(name="box")
        for number in range(20):
            await api.engine.events.add(container_event(await api.engine.containers.find(box), f"{number}", 1))
        await fill(store)
        executor.exit(box, 3)
        await api.followed()
        assert (await api.inspect(box)).state.exit_code == 3
        assert "container die" in await api.actions()
        await api.start(box)
        assert (await api.inspect(box)).state.running


@pytest.mark.parametrize(("verb", "told"), [("stop", "stop"), ("restart", "restart")])
async def test_a_deadline_does_not_part_an_end_from_its_event(
    api: Api, monkeypatch: pytest.MonkeyPatch, verb: str, told: str
) -> None:
    await api.run(name="web")
    events, add = api.engine.events, api.engine.events.add
    reached = asyncio.Event()

    async def slow(*added: Event) -> None:
        if told in [event.action for event in added]:
            reached.set()
            await asyncio.sleep(2.1)  # past the deadline below
        await add(*added)

    monkeypatch.setattr(events, "add", slow)
    if verb == "stop":
        with pytest.raises(DeadlineExceeded):
            await stop_container(api.engine, "web", deadline=Deadline.after(2))
    else:
        request = pb2.RestartContainerRequest(container="web")
        await refused(api.containers.RestartContainer(request, timeout=2))
    assert reached.is_set(), "the deadline was over before there was anything to tell"
    while f"container {told}" not in await api.actions(type=["container"]):
        await asyncio.sleep(0.01)


async def test_what_is_wrong_is_said_by_a_service_whose_node_never_answered(tmp_path: Path) -> None:
    executor = FakeExecutor(tmp_path / "executor.sock")
    async with running_api(tmp_path, executor, connected=False) as api:
        wrong = pb2.CreateContainerRequest(
            name="-", config=container_pb2.ContainerConfig(image="busybox", stop_signal="SIGNOPE")
        )
        wrong.host_config.runtime = "kata"
        refusal = await refused(api.containers.CreateContainer(wrong))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert {"name", "config.stop_signal"} <= refusal.violations.keys()
        assert "host_config.runtime" not in refusal.violations
        right = pb2.CreateContainerRequest(config=container_pb2.ContainerConfig(image="busybox", cmd=["true"]))
        assert (await refused(api.containers.CreateContainer(right))).code is grpc.StatusCode.UNAVAILABLE


async def test_an_image_that_is_refused_does_not_stay_on_the_node(api: Api, executor: FakeExecutor) -> None:
    before = set(executor.images)
    odd = json.dumps({"names": ["odd:1"], "config": {**image_config(), "config": {"Env": "no list"}}}).encode()
    assert (await refused(api.load(odd))).reason == "CORRUPT_IMAGE"
    assert set(executor.images) == before


async def test_an_image_that_cannot_be_taken_keeps_no_other_from_being_adopted(
    tmp_path: Path, executor: FakeExecutor
) -> None:
    executor.store_image(["odd:1"], {"config": {"Env": "no list"}})
    for number in range(3):
        executor.store_image([f"good:{number}"], image_config(Cmd=[str(number)]))
    async with running_api(tmp_path, executor) as api:
        async with asyncio.timeout(60):
            while len((await api.images.ListImages(image_pb2.ListImagesRequest())).images) < 3:
                await asyncio.sleep(0.01)


async def test_a_node_has_no_say_in_what_an_image_is(tmp_path: Path, executor: FakeExecutor) -> None:
    """Its id is the digest of its configuration, which is the record's for all nodes that have it."""
    image = executor.store_image(["box:1"], image_config(Cmd=["sound"]))
    executor.store_image(["other:1"], image_config(Cmd=["other"]))
    config, image.config = image.config, json.dumps(image_config(Cmd=["hostile"])).encode()
    async with running_api(tmp_path, executor) as api:
        async with asyncio.timeout(60):
            while not (found := (await api.images.ListImages(image_pb2.ListImagesRequest())).images):
                await asyncio.sleep(0.01)
        assert [list(each.repo_tags) for each in found] == [["other:1"]]
        image.config = config
        await api.create(image="other:1")


async def test_a_volume_that_has_no_name_of_one_keeps_no_other_from_being_adopted(
    tmp_path: Path, executor: FakeExecutor
) -> None:
    for name in ("", "../odd", "\0", "sound"):
        executor.volumes[name] = store_pb2.StoredVolume(name=name)
    async with running_api(tmp_path, executor) as api:
        async with asyncio.timeout(60):
            while not (found := (await api.volumes.ListVolumes(volume_pb2.ListVolumesRequest())).volumes):
                await asyncio.sleep(0.01)
        assert [volume.name for volume in found] == ["sound"]


async def test_a_container_of_many_volumes_keeps_no_other_from_the_journal(api: Api, executor: FakeExecutor) -> None:
    """What several entries tell of it together is more than a commit holds."""
    many = [mount_pb2.Mount(type="volume", target=f"/data/{number}") for number in range(40)]
    box, other = await api.run(mounts=many), await api.run(name="other")
    executor.paused = True
    for _ in range(8):
        executor.exit(box, 1, restart_in=1)
        executor.restart(box)
    executor.exit(other, 3)
    executor.resume()
    await api.followed()
    assert (await api.inspect("other")).state.exit_code == 3
    assert (await api.actions(container=[box])).count("container die") == 8


async def test_more_volumes_than_a_commit_holds_are_refused(api: Api, executor: FakeExecutor) -> None:
    many = [mount_pb2.Mount(type="volume", target=f"/data/{number}") for number in range(200)]
    why = await refused(api.create(mounts=many))
    assert (why.code, why.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RECORD_TOO_LARGE")
    assert await api.engine.containers.every_phase() == []
    assert not executor.containers


async def test_values_that_cannot_be_read_keep_nothing_else_from_its_work(api: Api) -> None:
    """A volume, an exec, an event, what is booked of a node."""
    box = await api.run(name="box")
    made = await api.execs.CreateExec(
        exec_pb2.CreateExecRequest(container="box", config=exec_pb2.ExecConfig(cmd=["true"]))
    )
    store = api.engine.containers._store
    for key in (
        "volumes/broken",
        f"exec/{'0' * 64}",
        f"container-exec/{box}/{'0' * 64}",
        "events/00000000000000000001-broken-0000",
        "node-usage/broken",
    ):
        await store.commit(Put(key=key, value=b"[1]"))
    await api.volumes.CreateVolume(volume_pb2.CreateVolumeRequest(name="data"))
    listed = await api.volumes.ListVolumes(volume_pb2.ListVolumesRequest())
    assert [volume.name for volume in listed.volumes] == ["data"]
    assert (await api.execs.InspectExec(exec_pb2.InspectExecRequest(exec=made.id))).exec.id == made.id
    await api.engine.execs.forget_old()
    assert [record.id for record in await api.engine.execs.of(box)] == [made.id]
    placement = container_pb2.Placement(reserve_memory=1 << 20)
    await api.start(await api.create(name="other", placement=placement))
    assert (await api.actions(type=["container"])).count("container start") == 2
    assert (await api.events(1, type=["volume"]))[0].event.actor_id == "data"
    await api.stop("box")
    await api.remove("box")
    assert (await api.engine.usages.all()).keys() == {"local"}
