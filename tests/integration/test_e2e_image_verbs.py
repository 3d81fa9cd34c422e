"""How an image was built, archives of images, the removal of what nobody needs: both services on the real kernel."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from pathlib import Path

import grpc
import pytest
from slipway.v1 import image_service_pb2 as pb
from slipway.v1 import system_service_pb2 as system_pb

from common.rpc_status import error_from
from executor_service.run import run
from tests.fixtures.busybox import busybox_image
from tests.fixtures.images import BuiltImage, Member, digest, docker_archive, member, symlink, tar
from tests.fixtures.slipway import Slipway

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

SHARED, OWN = 50_000, 70_000  # bytes of file content


def layer(name: str, size: int) -> bytes:
    return tar([member(name, random.Random(name).randbytes(size))])


async def load(engine: Slipway, *images: BuiltImage) -> None:
    await load_bytes(engine, docker_archive(*images))


async def load_bytes(engine: Slipway, data: bytes) -> list[pb.Image]:
    pieces = (pb.LoadImageRequest(chunk=data[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20))
    return list((await engine.images.LoadImage(pieces, timeout=30)).images)


async def prune(engine: Slipway, *, dangling: bool | None = None) -> pb.PruneImagesResponse:
    return await engine.images.PruneImages(pb.PruneImagesRequest(dangling=dangling), timeout=30)


def layers(engine: Slipway) -> set[str]:
    """Directories of the node: what is really there."""
    return {path.name for path in Path(f"/var/lib/slipway-{engine.instance}/storage/layers").iterdir()}


async def save(engine: Slipway, *images: str) -> bytes:
    call = engine.images.SaveImage(pb.SaveImageRequest(images=images), timeout=30)
    return b"".join([answer.chunk async for answer in call])


@pytest.mark.skipif(not shutil.which("skopeo"), reason="the oracle is not here")
async def test_saved_images_are_what_skopeo_and_a_load_take(engine: Slipway, tmp_path: Path) -> None:
    top = layer("saved", 3 << 20)
    one = BuiltImage(layers=[*busybox_image().layers, top], config={"Cmd": ["wc", "-c", "/saved"]}, names=["save:1"])
    two = BuiltImage(layers=[top], names=["save:2"])
    await load(engine, one, two)
    archive = await save(engine, "save:1", "save:2")
    assert archive == await save(engine, "save:1", "save:2")
    file = tmp_path / "saved.tar"
    file.write_bytes(archive)
    for source in (f"docker-archive:{file}:save:1", f"oci-archive:{file}:1"):
        inspected = await run(["skopeo", "inspect", "--config", "--raw", source], timeout=30)
        assert inspected.returncode == 0, inspected.message
        assert digest(inspected.stdout) == one.id
        copied = await run(
            ["skopeo", "copy", "-q", source, f"docker-archive:{tmp_path / 'copy.tar'}:back:1"], timeout=30
        )
        assert copied.returncode == 0, copied.message  # skopeo verifies every layer's digest
        for name in ("save:1", "save:2", one.id, "back:1"):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await engine.images.RemoveImage(pb.RemoveImageRequest(image=name, force=True), timeout=30)
        loaded = await load_bytes(engine, (tmp_path / "copy.tar").read_bytes())
        assert [image.id for image in loaded] == [one.id]
        (tmp_path / "copy.tar").unlink()
    assert {image.id for image in await load_bytes(engine, archive)} == {one.id, two.id}
    assert await engine.output(config={"image": "save:1", "cmd": []}) == f"{3 << 20} /saved\n"
    for image in (one, two):
        await engine.images.RemoveImage(pb.RemoveImageRequest(image=image.id, force=True), timeout=30)


@pytest.mark.parametrize(
    ("odd", "user", "reason", "why"),
    [
        ([symlink("proc", "/tmp")], "", "UNSAFE_ROOT", "/proc of the image"),
        ([member("dev", b"a file")], "", "UNSAFE_ROOT", "/dev of the image"),
        ([member("harmless")], "nemo", "IMAGE_UNFIT", "nemo"),
    ],
)
async def test_an_image_that_cannot_be_run_says_why(
    engine: Slipway, odd: list[Member], user: str, reason: str, why: str
) -> None:
    await load(engine, BuiltImage(layers=[*busybox_image().layers, tar(odd)], names=["odd"]))
    box = await engine.create("true", config={"image": "odd", "user": user})
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await engine.start(box)
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    error = error_from(refusal.value)
    assert (error.reason, error.metadata["exit_code"]) == (reason, "128")
    state = (await engine.inspect(box)).state
    assert state.exit_code == 128
    assert why in error.message
    assert why in state.error
    await engine.remove(box)
    await engine.images.RemoveImage(pb.RemoveImageRequest(image="odd"), timeout=30)


async def test_history_and_prune(engine: Slipway) -> None:
    base, shared = busybox_image().layers, layer("shared", SHARED)
    one = BuiltImage(layers=[*base, shared], names=["one:1"])
    two = BuiltImage(layers=[*base, shared, layer("own", OWN)], names=["two:1"])
    await load(engine, one, two)
    answer = await engine.images.ListImageHistory(pb.ListImageHistoryRequest(image="two:1"), timeout=60)
    assert [entry.size for entry in answer.entries[:2]] == [OWN, SHARED]
    assert [entry.id for entry in answer.entries] == [two.id, *["<missing>"] * (len(two.layers) - 1)]
    assert answer.entries[0].created_by == "tests"

    usage = await engine.system.GetDiskUsage(system_pb.GetDiskUsageRequest(), timeout=30)
    by_name = {name: each for each in usage.images for name in each.repo_tags}
    assert (by_name["two:1"].unique_size, by_name["one:1"].unique_size) == (OWN, 0)
    assert by_name["two:1"].shared_size == by_name["one:1"].size == usage.images_size - OWN

    # The names move on to another image; one of the two is a container's.
    moved = BuiltImage(layers=base, config={"Labels": {"moved": "1"}}, names=["one:1", "two:1"])
    await load(engine, moved)
    box = await engine.create("true", config={"image": one.id})
    before = layers(engine)
    answer_ = await prune(engine)
    assert (list(answer_.deleted), answer_.space_reclaimed) == ([two.id], OWN)
    assert len(before - layers(engine)) >= 1
    assert await engine.output("true") == ""  # what is left can be used

    # Both services come back with what was left, and with it the container's image goes.
    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()
    assert (await prune(engine)).deleted == []
    await engine.remove(box)
    answer_ = await prune(engine, dangling=False)
    assert {one.id, moved.id} <= set(answer_.deleted)
    assert {"one:1", "two:1", "busybox:latest"} <= set(answer_.untagged)
    assert answer_.space_reclaimed >= SHARED + 1_000_000
    assert layers(engine) == set()
