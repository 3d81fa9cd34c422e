"""ImageStoreService, VolumeStoreService and NodeService over a fake host."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.executor.v1 import image_store_service_pb2 as images
from slipway.executor.v1 import node_service_pb2 as node
from slipway.executor.v1 import runtime_service_pb2 as pb
from slipway.executor.v1 import volume_store_service_pb2 as volumes
from slipway.executor.v1.volume_store_service_pb2_grpc import VolumeStoreServiceStub

from tests.fixtures.executor_client import Client
from tests.fixtures.fake_host.host import FakeHost
from tests.fixtures.fake_host.specs import IMAGE_ID


async def _chunks(*chunks: bytes) -> AsyncIterator[images.LoadImageRequest]:
    for chunk in chunks:
        yield images.LoadImageRequest(chunk=chunk)


async def test_an_image_is_loaded_listed_and_removed(client: Client) -> None:
    loaded = await client.images.LoadImage(_chunks(b"ab", b"cd"), timeout=60)
    assert [image.config for image in loaded.images] == [b"abcd"]
    listed = await client.images.ListImages(images.ListImagesRequest(), timeout=60)
    assert {image.id for image in listed.images} == {IMAGE_ID, loaded.images[0].id}
    for _ in range(2):
        await client.images.RemoveImage(images.RemoveImageRequest(image_id=loaded.images[0].id), timeout=60)
    listed = await client.images.ListImages(images.ListImagesRequest(), timeout=60)
    assert [image.id for image in listed.images] == [IMAGE_ID]


async def test_an_image_in_use_stays(client: Client) -> None:
    box = await client.create()
    request = images.RemoveImageRequest(image_id=IMAGE_ID)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.images.RemoveImage(request, timeout=60)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert box in (refused.value.details() or "")
    await client.runtime.RemoveContainer(pb.RemoveContainerRequest(container_id=box), timeout=60)
    await client.images.RemoveImage(request, timeout=60)


async def test_who_makes_a_volume_is_told_so(client: Client) -> None:
    store = VolumeStoreServiceStub(client.channel)
    create = volumes.CreateVolumeRequest(name="data")
    made, again = [await store.CreateVolume(create, timeout=60) for _ in range(2)]
    assert (made.made, again.made) == (True, False)
    assert made.volume == again.volume
    await store.RemoveVolume(volumes.RemoveVolumeRequest(name="data"), timeout=60)
    assert (await store.CreateVolume(create, timeout=60)).made


async def test_an_import_needs_its_header_first(client: Client) -> None:
    async def requests(*payloads: images.ImportImageRequest) -> AsyncIterator[images.ImportImageRequest]:
        for payload in payloads:
            yield payload

    good = requests(images.ImportImageRequest(config=b'{"Cmd": ["sh"]}'), images.ImportImageRequest(chunk=b"tar"))
    assert (await client.images.ImportImage(good, timeout=60)).image.config == b"tar"
    chunk, twice = images.ImportImageRequest(chunk=b"tar"), images.ImportImageRequest(config=b"{}")
    late = images.ImportImageRequest(config=b"{}", created_at=Timestamp(seconds=1 << 50))
    foreign = images.ImportImageRequest(config=b"{}", platform=images.ImagePlatform(os="linux", architecture="a/b"))
    unreadable = images.ImportImageRequest(config=b"[")
    for bad in (
        requests(chunk),
        requests(),
        requests(twice, twice),
        *(requests(each, chunk) for each in (late, foreign, unreadable)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.images.ImportImage(bad, timeout=60)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_node_describes_itself(client: Client) -> None:
    answer = await client.node.GetNode(node.GetNodeRequest(), timeout=60)
    assert answer.node_id == client.executor.node.journal.node_id
    assert list(answer.runtimes) == ["crun", "runc"]
    assert list(answer.warnings) == ["no IPv6"]
    assert answer.memory > 0
    assert answer.cpus > 0


async def test_disk_usage_adds_up(client: Client, host: FakeHost) -> None:
    await client.create(1)
    await client.create(2)
    usage = await client.node.GetDiskUsage(node.GetDiskUsageRequest(), timeout=60)
    assert (usage.images_size, usage.containers_size, usage.logs_size) == (1, 20, 100)
