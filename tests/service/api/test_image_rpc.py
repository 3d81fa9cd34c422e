"""ImageService: archives in, names, removals."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from slipway.v1 import container_service_pb2 as container_pb
from slipway.v1 import image_service_pb2 as pb2

from tests.fixtures.api import Api, refused
from tests.fixtures.fake_executor.images import archive, image_config


async def listed(api: Api, **filters: object) -> list[list[str]]:
    request = pb2.ListImagesRequest(**filters)  # type: ignore[arg-type]  # any filter
    return [list(image.repo_tags) for image in (await api.images.ListImages(request)).images]


async def tag(api: Api, image: str, target: str) -> None:
    await api.images.TagImage(pb2.TagImageRequest(image=image, target=target))


async def remove(api: Api, image: str, *, force: bool = False) -> pb2.RemoveImageResponse:
    return await api.images.RemoveImage(pb2.RemoveImageRequest(image=image, force=force))


async def inspect(api: Api, image: str) -> pb2.Image:
    return (await api.images.InspectImage(pb2.InspectImageRequest(image=image))).image


async def test_load(api: Api) -> None:
    config = image_config(Cmd=["run"], Env=["A=1"], Labels={"k": "v"}, ExposedPorts={"80/tcp": {}}, Entrypoint=None)
    answer = await api.load(archive(["docker.io/library/app:2", "reg.example/app"], config))
    [image] = answer.images
    assert list(image.repo_tags) == ["app:2", "reg.example/app:latest"]
    assert (image.architecture, image.os, image.size) == ("amd64", "linux", 1000)
    assert image.created_at.ToSeconds() == 1_700_000_000
    assert list(image.config.cmd) == ["run"]
    assert list(image.config.exposed_ports) == ["80/tcp"]
    for name in ("app:2", "docker.io/library/app:2", "reg.example/app", image.id, image.id[7:], image.id[7:19]):
        assert (await inspect(api, name)).id == image.id
    assert (await api.load(archive(["app:2"], config))).images[0].repo_tags == image.repo_tags


async def test_corrupt_archive(api: Api) -> None:
    refusal = await refused(api.load(b"not an archive"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CORRUPT_IMAGE")
    assert await listed(api) == [["busybox:latest"]]


@pytest.mark.parametrize("config", [{"config": {"Env": "A=1"}}, {"config": []}, {"os": 5}])
async def test_archive_with_a_configuration_of_the_wrong_shape(api: Api, config: dict[str, object]) -> None:
    refusal = await refused(api.load(archive(["x"], config)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CORRUPT_IMAGE")


async def test_name_moves_to_the_image_loaded_last(api: Api) -> None:
    before = await inspect(api, "busybox")
    after = (await api.load(archive(["busybox:latest"], image_config(Cmd=["new"])))).images[0]
    assert (await inspect(api, "busybox")).id == after.id
    assert list((await inspect(api, before.id)).repo_tags) == []
    assert await listed(api, dangling=True) == [[]]
    assert await listed(api, dangling=False) == [["busybox:latest"]]


async def test_client_that_vanishes_while_loading(api: Api) -> None:
    call = api.images.LoadImage()
    await call.write(pb2.LoadImageRequest(chunk=b"begin"))
    await api.executor.until(lambda: api.executor.streams == 1)
    call.cancel()
    await api.executor.until(lambda: api.executor.streams == 0)
    assert await listed(api) == [["busybox:latest"]]


async def test_import(api: Api) -> None:
    header = pb2.ImportImageHeader(reference="mine", config=pb2.ImageConfig(cmd=["sh"], env=["A=1"]))
    chunks = [pb2.ImportImageRequest(header=header), pb2.ImportImageRequest(chunk=b"tar")]
    image = (await api.images.ImportImage(iter(chunks))).image
    assert list(image.repo_tags) == ["mine:latest"]
    assert list(image.config.env) == ["A=1"]
    assert await api.actions(action=["import"]) == ["image import"]


async def test_import_says_what_it_is_for_and_what_is_to_be_noted(api: Api) -> None:
    header = pb2.ImportImageHeader(reference="mine", platform="linux/aarch64", message="of the old machine")
    chunks = [pb2.ImportImageRequest(header=header), pb2.ImportImageRequest(chunk=b"tar")]
    image = (await api.images.ImportImage(iter(chunks))).image
    assert image.architecture == "arm64"
    history = await api.images.ListImageHistory(pb2.ListImageHistoryRequest(image="mine"))
    assert [entry.comment for entry in history.entries] == ["of the old machine"]


async def test_load_for_another_platform(api: Api) -> None:
    for platform in ("", "linux/arm64/v8"):
        await api.images.LoadImage(iter([pb2.LoadImageRequest(platform=platform, chunk=archive(["app:1"]))]))
    here, there = api.executor.loads[-2:]
    assert (here.os, here.architecture, here.variant) == ("linux", "", "")
    assert (there.os, there.architecture, there.variant) == ("linux", "arm64", "v8")
    refusal = await refused(api.images.LoadImage(iter([pb2.LoadImageRequest(platform="windows", chunk=b"x")])))
    assert (refusal.code, list(refusal.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, ["platform"])
    assert len(api.executor.loads) == 3  # the first one is the fixture's


@pytest.mark.parametrize(
    ("payloads", "field"),
    [
        ([], "header"),
        (["chunk"], "header"),
        (["header", "chunk", "header"], "header"),
        (["bad reference"], "header.reference"),
        (["digest"], "header.reference"),
        (["bad config"], "header.config"),
        (["bad platform"], "header.platform"),
    ],
)
async def test_import_that_is_refused(api: Api, payloads: list[str], field: str) -> None:
    kinds = {
        "header": pb2.ImportImageRequest(header=pb2.ImportImageHeader(reference="mine")),
        "chunk": pb2.ImportImageRequest(chunk=b"tar"),
        "bad reference": pb2.ImportImageRequest(header=pb2.ImportImageHeader(reference="No Name")),
        "digest": pb2.ImportImageRequest(header=pb2.ImportImageHeader(reference=f"a@sha256:{'0' * 64}")),
        "bad platform": pb2.ImportImageRequest(header=pb2.ImportImageHeader(platform="linux/")),
        "bad config": pb2.ImportImageRequest(
            header=pb2.ImportImageHeader(config=pb2.ImageConfig(env=["=x"], working_dir="/proc/self/fd/7"))
        ),
    }
    refusal = await refused(api.images.ImportImage(iter([kinds[payload] for payload in payloads])))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [field]
    assert await listed(api) == [["busybox:latest"]]


async def test_list_filters(api: Api) -> None:
    await api.load(archive(["app:1", "app:2"], image_config(Labels={"tier": "front"})))
    assert await listed(api, reference=["busybox"]) == [["busybox:latest"]]
    assert await listed(api, reference=["app:*"]) == [["app:1", "app:2"]]
    assert await listed(api, reference=["app"]) == [["app:1", "app:2"]]
    assert await listed(api, reference=["app:3"]) == []
    assert await listed(api, label=["tier=front"]) == [["app:1", "app:2"]]
    assert await listed(api, label=["tier=back"]) == []


async def test_list_by_age(api: Api) -> None:
    for year in (2020, 2022, 2024):
        made = {**image_config(Labels={"of": str(year)}), "created": f"{year}-06-01T00:00:00Z"}
        await api.load(archive([f"of:{year}"], made))
    silent = await api.load(archive(["of:nobody-knows"], {**image_config(Labels={"of": "?"}), "created": None}))
    older = [["of:2020"], ["of:nobody-knows"]]
    assert await listed(api, reference=["of"], before="of:2022") == older
    assert await listed(api, reference=["of"], since="of:2020") == [["of:2024"], ["of:2022"]]
    assert await listed(api, reference=["of"], before="of:2024", since=silent.images[0].id) == [
        ["of:2022"],
        ["of:2020"],
    ]
    refusal = await refused(listed(api, since="of:2021"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "IMAGE_NOT_FOUND")
    assert (await refused(listed(api, before="No Image"))).violations.keys() == {"before"}


async def test_tag(api: Api) -> None:
    await tag(api, "busybox", "docker.io/library/tools")
    await tag(api, "busybox", "tools:latest")
    assert await listed(api) == [["busybox:latest", "tools:latest"]]
    assert await api.actions(action=["tag"]) == ["image tag"]
    assert "target" in (await refused(tag(api, "busybox", "No Name"))).violations
    assert (await refused(tag(api, "nobody", "x"))).code == grpc.StatusCode.NOT_FOUND


async def test_an_image_with_all_names_it_may_have_is_removed_whole(api: Api) -> None:
    for number in range(31):
        await tag(api, "busybox", f"tools:{number}")
    assert (await refused(tag(api, "busybox", "tools:one-more"))).reason == "TOO_MANY_NAMES"
    image = await inspect(api, "busybox")
    removed = await remove(api, image.id, force=True)
    assert len(removed.untagged) == 32
    assert await listed(api) == []


async def test_remove_takes_names_first(api: Api) -> None:
    await tag(api, "busybox", "tools")
    image = await inspect(api, "busybox")
    several = await refused(remove(api, image.id))
    assert (several.code, several.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_HAS_NAMES")
    assert list((await remove(api, "tools")).untagged) == ["tools:latest"]
    assert (await inspect(api, "busybox")).id == image.id
    answer = await remove(api, "busybox")
    assert (list(answer.untagged), list(answer.deleted)) == (["busybox:latest"], [image.id])
    assert api.executor.images == {}
    assert (await refused(inspect(api, "busybox"))).code == grpc.StatusCode.NOT_FOUND
    assert (await refused(remove(api, "busybox"))).code == grpc.StatusCode.NOT_FOUND
    assert await api.actions(type=["image"]) == [
        "image load", "image tag", "image untag", "image untag", "image delete",
    ]  # fmt: skip


async def test_image_of_a_running_container_stays(api: Api) -> None:
    await api.run(name="web")
    for force in (False, True):
        refusal = await refused(remove(api, "busybox", force=force))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "IMAGE_IN_USE")
        assert "web" in refusal.message


async def test_image_of_a_stopped_container_goes_by_force_and_its_layers_with_the_container(api: Api) -> None:
    await api.create(name="web")
    assert (await refused(remove(api, "busybox"))).reason == "IMAGE_IN_USE"
    image_id = (await inspect(api, "busybox")).id
    assert list((await remove(api, "busybox", force=True)).deleted) == [image_id]
    assert await listed(api) == []
    assert (await refused(inspect(api, image_id))).code == grpc.StatusCode.NOT_FOUND
    assert not (await api.start("web")).already_started
    await api.remove("web", force=True)
    assert api.executor.images == {}


async def test_ambiguous_and_impossible_images(api: Api) -> None:
    for number in range(40):
        await api.load(archive([f"app:{number}"], image_config(Cmd=[str(number)])))
    ids = [image.id[7:] for image in (await api.images.ListImages(pb2.ListImagesRequest())).images]
    assert len(set(ids)) == 41
    assert (await refused(inspect(api, "No Image"))).code == grpc.StatusCode.INVALID_ARGUMENT
    assert (await refused(inspect(api, ""))).code == grpc.StatusCode.INVALID_ARGUMENT


async def test_create_and_removal_of_its_image_at_once(api: Api) -> None:
    gate = asyncio.Event()
    fault = api.executor.fault("CreateContainer", gate=gate)
    create = asyncio.ensure_future(api.create(name="web"))
    await fault.reached.wait()
    assert (await refused(remove(api, "busybox"))).reason == "IMAGE_IN_USE"
    gate.set()
    await create
    assert (await api.containers.InspectContainer(container_pb.InspectContainerRequest(container="web"))).container
