"""Images to a real registry: what skopeo reads there, what is not sent twice, and what a killed executor leaves."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import image_service_pb2 as pb

from tests.fixtures.busybox import busybox_image
from tests.fixtures.images import BuiltImage, digest, directory, docker_archive, member, tar
from tests.fixtures.registry import Registry, registry
from tests.fixtures.relay import relay
from tests.fixtures.slipway import CHUNK, Slipway, installed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="no registry here"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(180),
]

BIG = 24 << 20  # bytes; several pieces


def layer(name: str, size: int) -> bytes:
    return tar([directory("pushed"), member(f"pushed/{name}", random.Random(name).randbytes(size))])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("push")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def place(scratch: Path) -> AsyncIterator[Registry]:
    async with registry(scratch / "registry") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(scratch: Path) -> AsyncIterator[Slipway]:
    async with installed(scratch) as made:
        yield made


async def load(engine: Slipway, *layers: bytes, name: str) -> str:
    built = BuiltImage(layers=[*busybox_image().layers, *layers], names=(name,), config={"Cmd": ["ls", "/pushed"]})
    archive = docker_archive(built)
    chunks = (pb.LoadImageRequest(chunk=archive[at : at + CHUNK]) for at in range(0, len(archive), CHUNK))
    return (await engine.images.LoadImage(chunks)).images[0].id


async def push(engine: Slipway, name: str) -> tuple[dict[str, int], str]:
    """The last phase of each layer, by diff id, and the digest."""
    phases: dict[str, int] = {}
    async for answer in engine.images.PushImage(pb.PushImageRequest(image=name), timeout=60):
        if answer.HasField("image"):
            return phases, answer.image.digest
        phases[answer.progress.digest] = answer.progress.phase
    raise AssertionError("the push ended without an image")


async def remove(engine: Slipway, *names: str) -> None:
    for name in names:
        await engine.images.RemoveImage(pb.RemoveImageRequest(image=name, force=True), timeout=30)


async def skopeo(*argv: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "skopeo", "--insecure-policy", *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    return said


async def test_what_is_pushed_is_what_others_and_we_pull(engine: Slipway, place: Registry, scratch: Path) -> None:
    name = f"{place.host}/team/app:1"
    image_id = await load(engine, layer("own", 100_000), name=name)
    phases, manifest = await push(engine, name)
    assert Counter(phases.values()) == {pb.LAYER_PHASE_DONE: len(phases)}
    raw = await skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert manifest == digest(raw)
    assert json.loads(raw)["config"]["digest"] == image_id
    await skopeo("copy", "-q", "--src-tls-verify=false", f"docker://{name}", f"oci:{scratch}/copied:1")
    shown = (await engine.images.InspectImage(pb.InspectImageRequest(image=name))).image
    assert list(shown.repo_digests) == [f"{place.host}/team/app@{manifest}"]

    await remove(engine, name)
    pulls = engine.images.PullImage(pb.PullImageRequest(reference=f"{place.host}/team/app@{manifest}"), timeout=60)
    [*_, last] = [answer async for answer in pulls]
    assert last.image.image.id == image_id
    await remove(engine, image_id)


async def test_what_the_registry_has_is_not_sent_again(engine: Slipway, place: Registry) -> None:
    shared = layer("shared", 200_000)
    first, second = f"{place.host}/one:1", f"{place.host}/two:1"
    image_id = await load(engine, shared, name=first)
    _, manifest = await push(engine, first)
    again, same = await push(engine, first)
    assert (set(again.values()), same) == ({pb.LAYER_PHASE_EXISTS}, manifest)
    await engine.images.TagImage(pb.TagImageRequest(image=image_id, target=second))
    mounted, _ = await push(engine, second)
    assert set(mounted.values()) == {pb.LAYER_PHASE_MOUNTED}
    # A new executor remembers nothing: it compresses, finds the same bytes there, and sends none.
    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()
    found, same = await push(engine, first)
    assert (set(found.values()), same) == ({pb.LAYER_PHASE_EXISTS}, manifest)
    await remove(engine, image_id)


async def test_a_push_that_was_killed_is_repeated(engine: Slipway, place: Registry) -> None:
    held, go, seen = asyncio.Event(), asyncio.Event(), 0

    async def in_the_middle(data: bytes) -> None:
        nonlocal seen
        seen += len(data)
        if seen > BIG // 2 and not go.is_set():
            held.set()
            await go.wait()

    async with relay(place.host, in_the_middle) as between:
        name = f"{between}/killed:1"
        image_id = await load(engine, layer("small", 1000), layer("big", BIG), name=name)
        call = engine.images.PushImage(pb.PushImageRequest(image=name), timeout=60)
        pushing = asyncio.create_task(_to_its_end(call))
        await held.wait()
        await engine.executor.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await pushing
        go.set()
        await engine.executor.start()
        await engine.node_back()
        _, manifest = await push(engine, name)
    name = f"{place.host}/killed:1"
    assert manifest == digest(await skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    await remove(engine, image_id)


async def _to_its_end(call: AsyncIterable[pb.PushImageResponse]) -> None:
    async for _ in call:
        pass


async def test_a_registry_that_is_not_there_is_told(engine: Slipway) -> None:
    name = "127.0.0.1:1/nobody:1"
    image_id = await load(engine, name=name)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await push(engine, name)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "127.0.0.1:1" in str(raised.value.details())
    await remove(engine, image_id)
