"""A pull whose services are killed at random points goes on where it was: the registry counts what it sends."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import image_service_pb2 as pb

from tests.fixtures.busybox import busybox_image
from tests.fixtures.images import BuiltImage, directory, member, tar
from tests.fixtures.scripted_registry import ScriptedRegistry, scripted_registry
from tests.fixtures.slipway import Slipway, installed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(420),
]

KILLS = 20
LAYERS = 6
SIZE = 1 << 20  # bytes of a layer


def layer(number: int) -> bytes:
    return tar([directory("pulled"), member(f"pulled/{number}", random.Random(number).randbytes(SIZE))])


IMAGE = BuiltImage(layers=[*busybox_image().layers, *map(layer, range(LAYERS))], config={"Cmd": ["ls", "/pulled"]})


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def source() -> AsyncIterator[ScriptedRegistry]:
    async with scripted_registry(IMAGE, pause=0.002) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(scratch: Path) -> AsyncIterator[Slipway]:
    async with installed(scratch) as made:
        yield made


async def pull(engine: Slipway, source: ScriptedRegistry) -> str:
    call = engine.images.PullImage(pb.PullImageRequest(reference=f"{source.host}/team/killed:1"), timeout=60)
    return [answer async for answer in call][-1].image.image.id


async def end_somewhere(engine: Slipway, source: ScriptedRegistry, service: str, point: float) -> bool:
    """Kill it when so much of what there is to send was sent, or shortly after all was. Whether the pull had failed."""
    total = LAYERS * SIZE
    pulling = asyncio.create_task(pull(engine, source))
    reached = asyncio.create_task(source.until_sent(int(min(point, 1.0) * total)))
    await asyncio.wait([pulling, reached], return_when=asyncio.FIRST_COMPLETED)
    if point > 1:
        await asyncio.wait([pulling], timeout=point - 1)
    await (engine.executor if service == "executor" else engine.api).kill()
    reached.cancel()
    await asyncio.wait([pulling])
    error = pulling.exception()
    assert error is None or isinstance(error, grpc.aio.AioRpcError)
    return error is not None


def on_disk(engine: Slipway) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes by digest: what is whole, and what has begun."""
    content = Path(f"/var/lib/slipway-{engine.instance}/storage/content")
    whole, begun = (
        {path.name.replace("-", ":"): path.stat().st_size for path in (content / name).iterdir()}
        for name in ("blobs", "partial")
    )
    return whole, begun


@pytest.mark.parametrize("service", ["executor", "api"])
async def test_a_pull_goes_on_after_kills(engine: Slipway, source: ScriptedRegistry, service: str) -> None:
    chance = random.Random(service)
    interrupted = halfway = resumed = 0
    for _ in range(KILLS):
        source.sent.clear()
        interrupted += await end_somewhere(engine, source, service, chance.uniform(0.02, 1.2))
        await source.idle()
        if service == "executor":
            whole, begun = on_disk(engine)
            await engine.executor.start()
            await engine.node_back()
        else:
            # The executor lives, and has heard that nobody wants it any more.
            while any(Path(f"/var/lib/slipway-{engine.instance}/storage/staging").iterdir()):
                await asyncio.sleep(0.01)
            whole, begun = on_disk(engine)
            await engine.api.start()
            await engine.node_back()
        source.sent.clear()
        assert await pull(engine, source) == IMAGE.id
        assert not set(whole) & set(source.sent)
        for name, size in begun.items():
            assert source.sent[name] <= len(source.blobs[name]) - size
        halfway += bool(whole) and bool(source.sent)
        resumed += bool(begun)
        assert on_disk(engine) == ({}, {})
        await engine.images.RemoveImage(pb.RemoveImageRequest(image=IMAGE.id, force=True), timeout=30)
    # The points were ones that say something.
    print(f"{interrupted} of {KILLS} interrupted, {halfway} with whole layers, {resumed} with begun ones")
    assert interrupted >= KILLS // 2
    assert halfway >= KILLS // 4
    assert resumed >= KILLS // 4
