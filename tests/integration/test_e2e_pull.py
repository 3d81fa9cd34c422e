"""Images from a real registry, through both services on the real kernel."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as container_pb
from slipway.v1 import image_service_pb2 as pb

from executor_service.run import run
from tests.fixtures.busybox import busybox_image
from tests.fixtures.images import BuiltImage, directory, member, tar
from tests.fixtures.registry import Registry, registry
from tests.fixtures.relay import relay
from tests.fixtures.slipway import Slipway, installed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="no registry here"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(240),
]


def layer(name: str, size: int) -> bytes:
    return tar([directory("pulled"), member(f"pulled/{name}", random.Random(name).randbytes(size))])


BIG = [layer(str(number), 3 << 20) for number in range(5)]


def image(*layers: bytes) -> BuiltImage:
    return BuiltImage(layers=[*busybox_image().layers, *layers], config={"Cmd": ["ls", "/pulled"]})


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pull")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def source(scratch: Path) -> AsyncIterator[Registry]:
    async with registry(scratch / "registry") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(scratch: Path) -> AsyncIterator[Slipway]:
    async with installed(scratch) as made:
        yield made


async def pull(engine: Slipway, reference: str, **fields: str) -> list[pb.PullImageResponse]:
    request = pb.PullImageRequest(reference=reference, **fields)  # type: ignore[arg-type]  # any field
    return [answer async for answer in engine.images.PullImage(request, timeout=60)]


async def remove(engine: Slipway, name: str) -> None:
    await engine.images.RemoveImage(pb.RemoveImageRequest(image=name, force=True), timeout=30)


async def output(engine: Slipway, name: str) -> str:
    request = container_pb.CreateContainerRequest(config=container_pb2.ContainerConfig(image=name))
    box = (await engine.containers.CreateContainer(request, timeout=30)).id
    await engine.start(box)
    await engine.wait(box)
    written = (await engine.logs(box)).decode()
    await engine.remove(box)
    return written


def peak_memory(pid: int) -> int:
    """In MiB."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]) >> 10


async def test_a_person_sees_a_line_a_layer(engine: Slipway, source: Registry) -> None:
    top = layer("seen", 3 << 20)
    await source.push(image(top), "seen:1")
    client = (sys.executable, "-m", "tests.pull", "--address", engine.api.address)
    sent, go, lines = 0, asyncio.Event(), list[str]()

    async def in_the_middle(data: bytes) -> None:
        """Until it is shown how far it is."""
        nonlocal sent
        sent += len(data)
        if sent > 1 << 20:
            await go.wait()

    async with relay(source.host, after=in_the_middle) as between:
        name = f"{between}/seen:1"
        process = await asyncio.create_subprocess_exec(*client, name, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            async for line in process.stdout:
                lines.append(line.decode())
                if "downloading" in lines[-1]:
                    go.set()
            assert await process.wait() == 0
    last = lines.pop()
    base, moved = (digest.partition(":")[2][:12] for digest in await source.layers("seen:1"))
    assert [each.split()[1] for each in lines if each.startswith(base)][-1] == "exists"
    phases = [each.split()[1] for each in lines if each.startswith(moved)]
    assert phases[-1] == "done"
    assert "downloading" in phases
    (pulled,) = (await engine.images.ListImages(pb.ListImagesRequest(reference=[name]), timeout=60)).images
    assert last.split() == [name, pulled.repo_digests[0].partition("@")[2]]
    refused = await run([*client, f"{source.host}/seen:nobody"], timeout=60)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert "nobody" in refused.message
    await remove(engine, name)


async def test_pulled_image_runs_and_shared_layers_come_once(engine: Slipway, source: Registry) -> None:
    await source.push(image(layer("a", 1 << 20)), "team/box:1")
    await source.push(image(layer("a", 1 << 20), layer("b", 1000)), "team/box:2")
    name = f"{source.host}/team/box:1"
    *progress, last = await pull(engine, name)
    layers = await source.layers("team/box:1")
    assert {each.progress.digest for each in progress} == set(layers)
    phases = {each.progress.digest: each.progress.phase for each in progress}
    # Busybox was loaded from an archive, and is the same layer.
    assert [phases[each] for each in layers] == [pb.LAYER_PHASE_EXISTS, pb.LAYER_PHASE_DONE]
    assert list(last.image.image.repo_tags) == [name]
    assert await output(engine, name) == "a\n"
    place = source.log.stat().st_size
    await pull(engine, f"{source.host}/team/box:2")
    top = (await source.layers("team/box:2"))[-1]
    asked = source.blob_requests(after=place)
    assert asked[top] == 1
    assert not set(layers) & set(asked)
    assert await output(engine, f"{source.host}/team/box:2") == "a\nb\n"
    by_digest = await pull(engine, f"{source.host}/team/box@{last.image.digest}", platform="linux")
    assert by_digest[-1].image.image.id == last.image.image.id
    for tag in "12":
        await remove(engine, f"{source.host}/team/box:{tag}")


async def test_what_is_not_there_is_told(engine: Slipway, source: Registry) -> None:
    for reference, code in (
        (f"{source.host}/team/none:1", grpc.StatusCode.NOT_FOUND),
        ("127.0.0.1:1/team/box:1", grpc.StatusCode.UNAVAILABLE),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await pull(engine, reference)
        assert refused.value.code() is code
        assert "registry 127.0.0.1" in (refused.value.details() or "")


async def test_equal_pulls_are_one(engine: Slipway, source: Registry) -> None:
    await source.push(image(*BIG, layer("large", 40 << 20)), "team/big:1")
    name, place = f"{source.host}/team/big:1", source.log.stat().st_size
    idle = peak_memory(engine.executor.pid)
    leaving, *staying = [engine.images.PullImage(pb.PullImageRequest(reference=name)) for _ in range(3)]
    for call in (leaving, *staying):
        assert isinstance(first := await call.read(), pb.PullImageResponse)
        assert first.HasField("progress")
    leaving.cancel()
    for call in staying:
        answers = []
        while isinstance(answer := await call.read(), pb.PullImageResponse):
            answers.append(answer)
        assert answers[-1].HasField("image")
    digests = set(await source.layers("team/big:1"))
    asked = source.blob_requests(after=place)
    assert {asked[each] for each in digests & set(asked)} == {1}
    # Of what one pull costs; the layer alone has 40 MiB, and other tests run in the same executor.
    assert peak_memory(engine.executor.pid) - idle < 60
    await remove(engine, name)
