"""VolumeService, and what creating and removing containers does to volumes."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from slipway.v1 import container_pb2, image_service_pb2, mount_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import volume_service_pb2 as volume_pb2

from common.errors import FailedPrecondition, Internal, InvalidArgument, Unavailable, Violation
from tests.fixtures.api import Api, refused, running_api
from tests.fixtures.fake_executor.executor import FakeExecutor
from tests.fixtures.fake_executor.images import archive, image_config

Mount = mount_pb2.Mount


async def make(api: Api, name: str = "", *, labels: dict[str, str] | None = None, **options: str) -> volume_pb2.Volume:
    request = volume_pb2.CreateVolumeRequest(
        name=name, driver=mount_pb2.VolumeDriver(options=options), labels=labels or {}
    )
    return (await api.volumes.CreateVolume(request)).volume


async def listed(api: Api, **wanted: Any) -> list[str]:
    return [each.name for each in (await api.volumes.ListVolumes(volume_pb2.ListVolumesRequest(**wanted))).volumes]


async def inspect(api: Api, name: str) -> volume_pb2.Volume:
    return (await api.volumes.InspectVolume(volume_pb2.InspectVolumeRequest(volume=name))).volume


async def remove(api: Api, name: str, *, force: bool = False) -> None:
    await api.volumes.RemoveVolume(volume_pb2.RemoveVolumeRequest(volume=name, force=force))


async def mounts(api: Api, container: str) -> dict[str, mount_pb2.MountPoint]:
    return {point.destination: point for point in (await api.inspect(container)).mounts}


async def test_a_volume_from_its_making_to_its_end(api: Api, executor: FakeExecutor) -> None:
    made = await make(api, "data", labels={"a": "b"})
    assert (made.mountpoint, made.node, made.driver.name, made.anonymous) == ("/volumes/data", "local", "local", False)
    assert await make(api, "data", labels={"other": "x"}) == made  # there already
    failed = await refused(make(api, "data", type="tmpfs", device="tmpfs"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.ALREADY_EXISTS, "VOLUME_EXISTS")
    nameless = await make(api)
    assert nameless.anonymous and len(nameless.name) == 64
    assert set(executor.volumes) == {"data", nameless.name}

    assert await inspect(api, "data") == made
    await remove(api, "data")
    assert list(executor.volumes) == [nameless.name]
    failed = await refused(remove(api, "data"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.NOT_FOUND, "VOLUME_NOT_FOUND")
    await remove(api, "data", force=True)
    assert (await refused(inspect(api, "data"))).code is grpc.StatusCode.NOT_FOUND
    assert await api.actions(type=["volume"]) == ["volume create", "volume create", "volume destroy"]


async def test_a_create_asks_for_no_list(api: Api, executor: FakeExecutor) -> None:
    """Which would cost more with each volume that is there."""
    await executor.until(lambda: "ListVolumes" in executor.calls)  # the node was looked through
    listings = executor.calls.count("ListVolumes")
    await make(api, "data")
    await make(api, "more")
    assert executor.calls.count("CreateVolume") == 2
    assert executor.calls.count("ListVolumes") == listings


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (volume_pb2.CreateVolumeRequest(name="x"), "name"),
        (volume_pb2.CreateVolumeRequest(name="../x"), "name"),
        (volume_pb2.CreateVolumeRequest(driver=mount_pb2.VolumeDriver(name="nfs")), "driver.name"),
        (volume_pb2.CreateVolumeRequest(driver=mount_pb2.VolumeDriver(options={"type": "nfs"})), "driver.options"),
    ],
)
async def test_what_can_be_no_volume(api: Api, request_: volume_pb2.CreateVolumeRequest, field: str) -> None:
    failed = await refused(api.volumes.CreateVolume(request_))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failed.violations) == [field]


async def test_lists_and_prune(api: Api) -> None:
    await api.load()
    for name, labels in (("aa", {"k": "1"}), ("ab", {"k": "2"}), ("used", {})):
        await make(api, name, labels=labels)
    nameless = (await make(api)).name
    box = await api.create("sleep", binds=["used:/v"])
    assert (await inspect(api, "used")).used_by == [box]
    assert await listed(api, name=["a", "x"], label=["k"]) == ["aa", "ab"]
    assert await listed(api, label=["k=2"]) == ["ab"]
    assert await listed(api, used=True) == ["used"]
    assert sorted(await listed(api, used=False)) == sorted(["aa", "ab", nameless])

    pruned = await api.volumes.PruneVolumes(volume_pb2.PruneVolumesRequest())
    assert (list(pruned.volumes), pruned.space_reclaimed) == ([nameless], 4096)
    pruned = await api.volumes.PruneVolumes(volume_pb2.PruneVolumesRequest(all=True, label=["k", "!k=1"]))
    assert list(pruned.volumes) == ["ab"]
    pruned = await api.volumes.PruneVolumes(volume_pb2.PruneVolumesRequest(all=True))
    assert list(pruned.volumes) == ["aa"]
    assert await listed(api) == ["used"]


async def test_a_create_makes_its_volumes_and_a_removal_takes_the_anonymous(api: Api, executor: FakeExecutor) -> None:
    await api.load(archive(config=image_config(Cmd=["sh"], Volumes={"/image/": {}, "/named": {}})))
    driver = mount_pb2.VolumeDriver(options={"type": "tmpfs", "device": "tmpfs"})
    options = mount_pb2.VolumeOptions(labels={"l": "x"}, driver_config=driver, no_copy=True)
    request = pb2.CreateContainerRequest(
        config=container_pb2.ContainerConfig(image="busybox", volumes=["/own"]),
        host_config=container_pb2.HostConfig(
            binds=["named:/named:ro"], mounts=[Mount(type="volume", source="made", target="/m", volume_options=options)]
        ),
    )
    box = (await api.containers.CreateContainer(request)).id
    points = await mounts(api, box)
    assert list(points) == ["/image", "/m", "/named", "/own"]
    assert [mount.target for mount in executor.containers[box].spec.mounts] == list(points)
    assert [mount.populate for mount in executor.containers[box].spec.mounts] == [True, False, True, True]
    made = await inspect(api, "made")
    assert dict(made.labels) == {"l": "x"}
    assert dict(made.driver.options) == {"type": "tmpfs", "device": "tmpfs"}
    assert not made.anonymous
    anonymous = await inspect(api, points["/image"].name)
    assert anonymous.anonymous and "com.docker.volume.anonymous" in anonymous.labels
    failed = await refused(remove(api, "named"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VOLUME_IN_USE")
    assert "named" in executor.volumes

    other = await api.create("sleep", volumes_from=[box])
    assert list(await mounts(api, other))[:4] == list(points)
    await api.remove(box, volumes=True)
    assert points["/image"].name in executor.volumes  # the other one uses it
    await api.start(other)
    executor.exit(other)
    await api.wait(other)
    assert await listed(api, used=True) != []
    await api.remove(other, volumes=True)
    assert sorted(executor.volumes) == ["made", "named"]
    actions = await api.actions(type=["volume"])
    assert actions.count("volume mount") == actions.count("volume unmount") == 4
    assert actions.count("volume destroy") == 2


async def test_an_auto_removed_container_takes_its_anonymous_volumes(api: Api, executor: FakeExecutor) -> None:
    await api.load()
    box = await api.run("sleep", binds=["/anonymous", "kept:/kept"], auto_remove=True)
    executor.exit(box)
    await api.gone(box)
    assert list(executor.volumes) == ["kept"]
    keeper = await api.create("sleep", binds=["/anonymous"])
    await api.remove(keeper)
    assert len(executor.volumes) == 2  # nobody asked for its volumes


async def test_a_create_that_fails_leaves_no_volume_of_its_own(api: Api, executor: FakeExecutor) -> None:
    await api.load()
    await make(api, "before")
    executor.fault("CreateContainer", error=Internal("no"))
    await refused(api.create("sleep", binds=["before:/a", "new:/b", "/c"]))
    assert list(executor.volumes) == await listed(api) == ["before"]
    # One that somebody asked for meanwhile is not the create's any more.
    gate = asyncio.Event()
    fault = executor.fault("CreateContainer", gate=gate, error=Internal("no"))
    creating = asyncio.ensure_future(refused(api.create("sleep", binds=["new:/b", "/c"])))
    await fault.reached.wait()
    await make(api, "new")
    gate.set()
    await creating
    assert await listed(api) == ["before", "new"]


async def test_a_volume_goes_or_is_used_and_never_both(api: Api, executor: FakeExecutor) -> None:
    """Removals and creates of the same volume side by side: who is refused has changed nothing, and a container that
    was made has its volume."""
    await api.load()
    for _ in range(15):
        await make(api, "contested")
        created, removed = await asyncio.gather(
            api.create("sleep", binds=["contested:/v"]), remove(api, "contested"), return_exceptions=True
        )
        if isinstance(created, str):
            assert "contested" in executor.volumes
            assert (await inspect(api, "contested")).used_by == [created]
            await api.remove(created)
        else:
            assert removed is None
            assert isinstance(created, grpc.aio.AioRpcError)
            assert created.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
            assert await api.names() == []
        await remove(api, "contested", force=True)


async def test_a_create_meets_a_removal_half_done(api: Api, executor: FakeExecutor) -> None:
    await api.load()
    await make(api, "data")
    gate = asyncio.Event()
    fault = executor.fault("RemoveVolume", gate=gate)
    removing = asyncio.ensure_future(remove(api, "data"))
    await fault.reached.wait()
    failed = await refused(api.create("sleep", binds=["data:/v", "made:/m"]))
    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VOLUME_BEING_REMOVED")
    gate.set()
    await removing
    assert await listed(api) == list(executor.volumes) == []


async def test_a_removal_that_was_cut_off_is_finished_when_the_node_is_back(api: Api, executor: FakeExecutor) -> None:
    await make(api, "data")
    executor.fault("RemoveVolume", error=Unavailable("away"))
    assert (await refused(remove(api, "data"))).code is grpc.StatusCode.UNAVAILABLE
    assert "data" in executor.volumes
    await executor.down()
    await executor.up()
    await executor.until(lambda: "data" not in executor.volumes)
    async with asyncio.timeout(60):
        while await listed(api):
            await asyncio.sleep(0)


async def test_a_refused_removal_leaves_the_volume_usable(api: Api, executor: FakeExecutor) -> None:
    await api.load()
    await make(api, "data")
    executor.fault("RemoveVolume", error=FailedPrecondition("a container names it"))
    assert (await refused(remove(api, "data"))).code is grpc.StatusCode.FAILED_PRECONDITION
    await api.create("sleep", binds=["data:/v"])


async def test_volumes_survive_and_those_without_a_record_are_shown(tmp_path: Any, executor: FakeExecutor) -> None:
    async with running_api(tmp_path, executor) as api:
        await make(api, "data", labels={"a": "b"})
    (tmp_path / "new").mkdir()
    async with running_api(tmp_path / "new", executor) as api, asyncio.timeout(60):
        while await listed(api) != ["data"]:
            await asyncio.sleep(0)
    async with running_api(tmp_path, executor) as api:
        assert (await inspect(api, "data")).labels == {"a": "b"}


async def test_what_the_node_says_of_a_mount_is_said_of_the_request(api: Api, executor: FakeExecutor) -> None:
    await api.load()
    gone = Violation(field="spec.mounts[1].source", description="the bind source '/x' does not exist")
    executor.fault("CreateContainer", error=InvalidArgument(violations=[gone]))
    failed = await refused(
        api.create("sleep", binds=["/a:/z"], mounts=[Mount(type="bind", source="/x", target="/b")], tmpfs={"/a": ""})
    )
    assert failed.violations == {"host_config.mounts[0].source": "the bind source '/x' does not exist"}


async def test_an_image_that_is_mounted_stays(api: Api, executor: FakeExecutor) -> None:
    await api.load()
    await api.load(archive(names=["tools:1"], config=image_config(Cmd=["tools"])))
    failed = await refused(api.create("sleep", mounts=[Mount(type="image", source="missing", target="/t")]))
    assert failed.code is grpc.StatusCode.NOT_FOUND
    box = await api.create("sleep", mounts=[Mount(type="image", source="tools:1", target="/t")])
    (point,) = (await mounts(api, box)).values()
    assert point.source.startswith("sha256:") and not point.rw
    request = image_service_pb2.RemoveImageRequest(image="tools:1")
    assert (await refused(api.images.RemoveImage(request))).code is grpc.StatusCode.FAILED_PRECONDITION
    await api.remove(box)
    await api.images.RemoveImage(request)


@pytest.mark.parametrize("path", ["/../..", "relative", "/proc/1/root"])
async def test_hostile_volumes_of_an_image(api: Api, executor: FakeExecutor, path: str) -> None:
    await api.load(archive(names=["evil:latest"], config=image_config(Cmd=["sh"], Volumes={path: {}})))
    failed = await refused(api.create("sh", image="evil"))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "config.volumes[0]" in failed.message
    assert executor.volumes == {}
    assert await api.names() == []


async def test_volumes_from_needs_its_container(api: Api) -> None:
    await api.load()
    failed = await refused(api.create("sleep", volumes_from=["nobody"]))
    assert failed.code is grpc.StatusCode.NOT_FOUND
