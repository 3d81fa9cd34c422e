"""ImageService: how an image was built, and the removal of all that nobody needs."""

from __future__ import annotations

import asyncio

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.executor.v1 import image_store_service_pb2 as image_store_pb
from slipway.v1 import image_service_pb2 as pb2
from slipway.v1 import system_service_pb2 as system_pb

from common.errors import DataLoss, FailedPrecondition
from tests.fixtures.api import Api, refused
from tests.fixtures.fake_executor.images import archive, image_config

CREATED = 1_700_000_000  # seconds; what `image_config` says


async def history(api: Api, image: str) -> list[pb2.ImageHistoryEntry]:
    return list((await api.images.ListImageHistory(pb2.ListImageHistoryRequest(image=image))).entries)


async def prune(api: Api, **fields: object) -> pb2.PruneImagesResponse:
    return await api.images.PruneImages(pb2.PruneImagesRequest(**fields))  # type: ignore[arg-type]  # any field


async def load(api: Api, name: str, *, layer: str, **config: object) -> pb2.Image:
    """Its layer is its own."""
    names = [name] if name else []
    image = (await api.load(archive(names, image_config(Cmd=[layer], **config)))).images[0]
    stored = api.executor.images[image.id]
    stored.layers[:] = ["sha256:" + layer * 64]
    return image


async def test_history_is_newest_first_with_the_sizes_of_its_layers(api: Api) -> None:
    config = {
        **image_config(Cmd=["x"]),
        "history": [
            {"created": "2023-11-14T22:13:20Z", "created_by": "ADD root", "comment": "base"},
            {"created_by": "ENV A=1", "empty_layer": True},
            {"created": "not a time", "created_by": None},
        ],
    }
    image = (await api.load(archive(["app:1", "app:2"], config))).images[0]
    api.executor.images[image.id].layer_sizes[:] = [7, 9]
    newest, environment, base = await history(api, "app:1")
    assert (newest.id, list(newest.tags), newest.size, newest.created_by) == (image.id, ["app:1", "app:2"], 9, "")
    assert not newest.HasField("created_at")
    assert (environment.id, environment.size, environment.created_by) == ("<missing>", 0, "ENV A=1")
    assert (base.id, base.size, base.comment, list(base.tags)) == ("<missing>", 7, "base", [])
    assert base.created_at.ToSeconds() == CREATED


async def test_history_tells_of_every_layer_and_of_no_more(api: Api) -> None:
    silent = (await api.load(archive(["silent"], image_config(Cmd=["x"])))).images[0]
    assert [(entry.id, entry.size) for entry in await history(api, "silent")] == [(silent.id, 1000)]
    more = {**image_config(Cmd=["y"]), "history": [{"created_by": "1"}, {"created_by": "2"}]}
    await api.load(archive(["more"], more))
    assert [(entry.created_by, entry.size) for entry in await history(api, "more")] == [("2", 0), ("1", 1000)]


async def test_history_refusals(api: Api) -> None:
    await api.load(archive(["odd"], {**image_config(Cmd=["z"]), "history": [{"created_by": 5}]}))
    refusal = await refused(history(api, "odd"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HISTORY_UNREADABLE")
    assert "history.0.created_by" in refusal.message
    refusal = await refused(history(api, "nobody"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")
    refusal = await refused(history(api, ""))
    assert refusal.violations.keys() == {"image"}


async def test_prune_takes_what_has_no_name_and_no_container(api: Api) -> None:
    unnamed = await load(api, "", layer="2")
    used = await load(api, "", layer="3")
    await load(api, "named", layer="4")
    await api.create(image=used.id)
    answer = await prune(api)
    assert (list(answer.deleted), list(answer.untagged), answer.space_reclaimed) == ([unnamed.id], [], 1000)
    assert unnamed.id not in api.executor.images
    answer = await prune(api, dangling=False)
    assert sorted(answer.untagged) == ["busybox:latest", "named:latest"]
    assert set(api.executor.images) == {used.id}
    assert await prune(api, dangling=False) == pb2.PruneImagesResponse()


async def test_prune_counts_no_layer_that_another_image_has(api: Api) -> None:
    first, second = await load(api, "", layer="2"), await load(api, "kept", layer="3")
    api.executor.images[first.id].layers[:] = api.executor.images[second.id].layers
    answer = await prune(api)
    assert (list(answer.deleted), answer.space_reclaimed) == ([first.id], 0)


async def test_prune_filters(api: Api) -> None:
    await load(api, "a", layer="2", Labels={"keep": "yes"})
    await load(api, "b", layer="3", Labels={"keep": "no"})
    too_early = Timestamp(seconds=CREATED)
    assert not (await prune(api, dangling=False, until=too_early)).deleted
    later = Timestamp(seconds=CREATED + 1)
    answer = await prune(api, dangling=False, until=later, label=["keep", "!keep=yes"])
    assert list(answer.untagged) == ["b:latest"]
    refusal = await refused(prune(api, until=Timestamp(seconds=-1)))
    assert refusal.violations.keys() == {"until"}


async def test_prune_goes_on_past_one_that_cannot_be_removed_and_runs_alone(api: Api) -> None:
    images = {(await load(api, "", layer=layer)).id for layer in "23"}
    api.executor.fault("RemoveImage", error=FailedPrecondition("it is needed"))
    held = api.executor.fault("RemoveImage", gate=asyncio.Event())
    pruning = asyncio.ensure_future(prune(api))
    await held.reached.wait()
    refusal = await refused(prune(api))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "PRUNE_RUNNING")
    assert held.gate is not None
    held.gate.set()
    (deleted,) = (await pruning).deleted
    (left,) = images - {deleted}
    assert list((await prune(api)).deleted) == [left]


async def test_image_that_is_removed_before_it_is_recorded_is_not_recorded(api: Api) -> None:
    held = api.executor.fault("GetImage", gate=asyncio.Event())
    loading = asyncio.ensure_future(refused(api.load(archive(["late"], image_config(Cmd=["late"])))))
    await held.reached.wait()
    api.executor.images.clear()
    assert held.gate is not None
    held.gate.set()
    refusal = await loading
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "IMAGE_REMOVED")
    assert (await refused(history(api, "late"))).code == grpc.StatusCode.NOT_FOUND


async def save(api: Api, *images: str) -> image_store_pb.SaveImagesRequest:
    """What the node was asked for."""
    call = api.images.SaveImage(pb2.SaveImageRequest(images=images))
    return image_store_pb.SaveImagesRequest.FromString(b"".join([answer.chunk async for answer in call]))


async def test_saved_images_have_the_names_they_were_asked_for_by(api: Api) -> None:
    image = (await api.load(archive(["reg.example/app:1", "app:2"], image_config(Cmd=["x"])))).images[0]
    asked = await save(api, "app:2", "busybox", "reg.example/app:1", image.id[7:20])
    assert [[name.canonical for name in each.names] for each in asked.images] == [
        ["docker.io/library/app:2", "reg.example/app:1"],
        ["docker.io/library/busybox:latest"],
    ]
    assert asked.images[0].image_id == image.id
    assert (asked.images[0].names[0].repository, asked.images[0].names[0].tag) == ("app", "2")
    assert not (await save(api, image.id)).images[0].names


async def test_a_repository_is_saved_with_all_its_tags(api: Api) -> None:
    first = await load(api, "reg.example/app:1", layer="2")
    second = await load(api, "reg.example/app:2", layer="3")
    await api.images.TagImage(pb2.TagImageRequest(image=first.id, target="reg.example/app:old"))
    await api.images.TagImage(pb2.TagImageRequest(image=first.id, target="app:1"))
    await load(api, "reg.example/app/more:1", layer="4")
    asked = await save(api, "reg.example/app", "reg.example/app:2")
    assert [(image.image_id, [name.tag for name in image.names]) for image in asked.images] == [
        (first.id, ["1", "old"]),
        (second.id, ["2"]),
    ]
    await api.images.RemoveImage(pb2.RemoveImageRequest(image="reg.example/app:2"))
    asked = await save(api, "reg.example/app")
    assert [image.image_id for image in asked.images] == [first.id]


async def test_save_refusals(api: Api) -> None:
    refusal = await refused(save(api, "busybox", "nobody"))
    assert (refusal.code, refusal.resource.resource_name if refusal.resource else "") == (
        grpc.StatusCode.NOT_FOUND,
        "nobody",
    )
    assert (await refused(save(api))).violations.keys() == {"images"}
    assert (await refused(save(api, "busybox", "Bad Name"))).violations.keys() == {"images[1]"}
    api.executor.fault("SaveImages", error=DataLoss("layer", reason="LAYER_DAMAGED"))
    refusal = await refused(save(api, "busybox"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "LAYER_DAMAGED")


async def test_disk_usage_tells_what_each_image_has_alone(api: Api) -> None:
    one, two = await load(api, "one", layer="2"), await load(api, "two", layer="3")
    shared, own = "sha256:" + "4" * 64, "sha256:" + "5" * 64
    for image, layers, sizes in ((one, [shared, shared], [7, 7]), (two, [shared, own], [7, 3])):
        api.executor.images[image.id].layers[:] = layers
        api.executor.images[image.id].layer_sizes[:] = sizes
    await api.create(image="two")
    usage = {each.id: each for each in (await api.system.GetDiskUsage(system_pb.GetDiskUsageRequest())).images}
    found = {each.id: (each.size, each.shared_size, each.unique_size, each.containers) for each in usage.values()}
    assert (found[one.id], found[two.id]) == ((7, 7, 0, 0), (10, 7, 3, 1))
    assert list(usage[one.id].repo_tags) == ["one:latest"]
    assert next(iter(usage)) not in (one.id, two.id)  # busybox takes the most alone
