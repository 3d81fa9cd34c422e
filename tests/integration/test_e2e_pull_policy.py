"""Creates that take their image from a real registry, mirrors before it, and who is shown which credentials."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import image_service_pb2 as image_pb

from tests.fixtures.busybox import busybox_image
from tests.fixtures.http_server import Asked, http_server, send
from tests.fixtures.images import BuiltImage, directory, member, tar
from tests.fixtures.registry import Registry, registry
from tests.fixtures.slipway import PROGRAM_ENVIRONMENT, Slipway, installed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.skipif(not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="no registry here"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

MISSING, ALWAYS, NEVER = pb.PULL_POLICY_MISSING, pb.PULL_POLICY_ALWAYS, pb.PULL_POLICY_NEVER
UNSPECIFIED = pb.PULL_POLICY_UNSPECIFIED


class Mirror:
    """Has nothing, and notes who asked for what."""

    def __init__(self) -> None:
        self.host = ""
        self.asked: list[tuple[str, str]] = []

    async def answer(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if shown := asked.headers.get("authorization"):
            self.asked.append((asked.target, base64.b64decode(shown.split()[1]).decode()))
            send(writer, 404)
        else:
            send(writer, 401, headers={"WWW-Authenticate": 'Basic realm="mirror"'})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def mirror() -> AsyncIterator[Mirror]:
    made = Mirror()
    async with http_server(made.answer) as made.host:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def source(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with registry(tmp_path_factory.mktemp("registry")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory, source: Registry, mirror: Mirror) -> AsyncIterator[Slipway]:
    """Its API, an unprivileged user, reads a config.json whose helper knows the mirror alone."""
    with tempfile.TemporaryDirectory() as directory:
        programs = Path(directory)
        programs.chmod(0o755)
        helper = programs / "docker-credential-test"
        helper.write_text("""#!/bin/sh\necho "{\\"Username\\": \\"$(id -u)\\", \\"Secret\\": \\"$(cat)\\"}"\n""")
        helper.chmod(0o755)
        (programs / "config.json").write_text(json.dumps({"credHelpers": {mirror.host: "test"}}))
        mirrors = {source.host: ["127.0.0.1:1", f"{mirror.host}/cache"]}
        flags = ["--default-registry", source.host, "--registry-mirrors", json.dumps(mirrors)]
        flags += ["--docker-config", str(programs / "config.json")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(PROGRAM_ENVIRONMENT, "PATH", f"{directory}:{os.environ['PATH']}")
            async with installed(tmp_path_factory.mktemp("engine"), api=flags) as made:
                yield made


def image(text: str) -> BuiltImage:
    said = tar([directory("said"), member("said/it", text.encode())])
    return BuiltImage(layers=[*busybox_image().layers, said], config={"Cmd": ["cat", "/said/it"]})


async def create(engine: Slipway, reference: str, policy: pb.PullPolicy.ValueType = UNSPECIFIED, **fields: str) -> str:
    config = container_pb2.ContainerConfig(image=reference)
    request = pb.CreateContainerRequest(config=config, pull_policy=policy, **fields)  # type: ignore[arg-type]  # texts
    return (await engine.containers.CreateContainer(request, timeout=30)).id


async def says(engine: Slipway, box: str) -> str:
    await engine.start(box)
    await engine.wait(box)
    written = (await engine.logs(box)).decode()
    await engine.remove(box)
    return written


async def test_missing_always_and_never(engine: Slipway, source: Registry) -> None:
    name = f"{source.host}/team/app:1"
    await source.push(image("one"), "team/app:1")
    for policy in (NEVER, MISSING):
        wrong = name if policy == NEVER else f"{source.host}/team/none:1"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await create(engine, wrong, policy, name="app")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    # The refused ones left nothing: the name is free.
    both = await asyncio.gather(create(engine, name, name="app"), create(engine, name, MISSING, name="app2"))
    assert [await says(engine, box) for box in both] == ["one", "one"]
    await source.push(image("two"), "team/app:1")
    assert await says(engine, await create(engine, name, MISSING)) == "one"
    (digest,) = (await engine.images.InspectImage(image_pb.InspectImageRequest(image=name))).image.repo_digests
    assert await says(engine, await create(engine, name, ALWAYS)) == "two"
    assert await says(engine, await create(engine, name, NEVER)) == "two"
    # The name has moved on, the digest means what it meant.
    assert await says(engine, await create(engine, digest, NEVER)) == "one"
    for text in (digest, name):
        await engine.images.RemoveImage(image_pb.RemoveImageRequest(image=text), timeout=30)
    assert await says(engine, await create(engine, digest)) == "one"


async def test_short_name_from_the_default_registry_after_its_mirrors(
    engine: Slipway, source: Registry, mirror: Mirror
) -> None:
    await source.push(image("short"), "library/short:3")
    mirror.asked.clear()
    box = await create(engine, "short:3")
    assert (await engine.inspect(box)).config.image == "short:3"
    assert await says(engine, box) == "short"
    ((path, shown),) = mirror.asked
    assert path == "/v2/cache/library/short/manifests/3"
    # The helper ran as the user of the API service, and was asked for the mirror alone.
    user, _, server = shown.partition(":")
    assert user != "0"
    assert server == mirror.host


async def test_removals_and_creates_side_by_side(engine: Slipway, source: Registry) -> None:
    """Either may win; no container comes to be without its image, and none is lost without a word."""
    name = f"{source.host}/team/race:1"
    await source.push(image("race"), "team/race:1")

    async def remove() -> None:
        for _ in range(6):
            try:
                await engine.images.RemoveImage(image_pb.RemoveImageRequest(image=name), timeout=30)
            except grpc.aio.AioRpcError as error:
                assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
            await asyncio.sleep(0.01)

    async def run() -> None:
        for _ in range(3):
            try:
                assert await says(engine, await create(engine, name)) == "race"
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.ABORTED

    await asyncio.gather(remove(), run(), run())
