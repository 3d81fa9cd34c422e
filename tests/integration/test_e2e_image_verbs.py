"""How an image was built and the removal of what nobody needs, through both services on the real kernel."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from slipway.v1 import image_service_pb2 as pb

from tests.fixtures.busybox import busybox_image
from tests.fixtures.images import BuiltImage, docker_archive, member, tar
from tests.fixtures.slipway import Slipway, installed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

SHARED, OWN = 50_000, 70_000  # bytes of file content


def layer(name: str, size: int) -> bytes:
    return tar([member(name, random.Random(name).randbytes(size))])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slipway]:
    async with installed(tmp_path_factory.mktemp("verbs")) as made:
        yield made


async def load(engine: Slipway, *images: BuiltImage) -> None:
    data = docker_archive(*images)
    pieces = (pb.LoadImageRequest(chunk=data[at : at + (1 << 20)]) for at in range(0, len(data), 1 << 20))
    await engine.images.LoadImage(pieces, timeout=30)


async def prune(engine: Slipway, *, dangling: bool | None = None) -> pb.PruneImagesResponse:
    return await engine.images.PruneImages(pb.PruneImagesRequest(dangling=dangling), timeout=30)


def layers(engine: Slipway) -> set[str]:
    """Directories of the node: what is really there."""
    return {path.name for path in Path(f"/var/lib/slipway-{engine.instance}").glob("**/layers/*")}


async def test_history_and_prune(engine: Slipway) -> None:
    base, shared = busybox_image().layers, layer("shared", SHARED)
    one = BuiltImage(layers=[*base, shared], names=["one:1"])
    two = BuiltImage(layers=[*base, shared, layer("own", OWN)], names=["two:1"])
    await load(engine, one, two)
    answer = await engine.images.ListImageHistory(pb.ListImageHistoryRequest(image="two:1"), timeout=10)
    assert [entry.size for entry in answer.entries[:2]] == [OWN, SHARED]
    assert [entry.id for entry in answer.entries] == [two.id, *["<missing>"] * (len(two.layers) - 1)]
    assert answer.entries[0].created_by == "tests"

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
