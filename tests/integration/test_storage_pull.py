"""Pulls into the image store: what is downloaded, what is not, and what is left."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from pathlib import Path

import pytest
import zstandard

from common.errors import InvalidArgument, ResourceExhausted, Unavailable
from executor_service.registry.source import Descriptor, Platform
from executor_service.storage import layers
from executor_service.storage.content import ContentLimits, ContentStore
from executor_service.storage.image_caps import ImageCaps
from executor_service.storage.image_config import Step
from executor_service.storage.images import Image
from executor_service.storage.layer_progress import LayerPhase, LayerProgress
from executor_service.storage.layer_pull import PullLimits
from executor_service.storage.node import Storage, StorageLimits, open_storage
from executor_service.storage.unpack import UnpackLimits
from tests.fixtures.image_source import MemorySource, gzipped
from tests.fixtures.images import BuiltImage, digest, directory, docker_archive, hardlink, member, stream, symlink, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacks layers with their owners: needs root")

NOISE = random.Random(1).randbytes(2 << 20)  # several batches, whatever packs it
BASE = tar([directory("etc"), member("etc/base", b"base", mode=0o4755, uid=5, gid=6), symlink("link", "etc")])
MIDDLE = tar([directory("data", mode=0o1777), member("data/noise", NOISE), hardlink("data/again", "data/noise")])
TOP = tar([directory("etc"), member("etc/.wh.base"), directory("data"), member("data/.wh..wh..opq")])
IMAGE = BuiltImage(layers=[BASE, MIDDLE, TOP])
LINUX = Platform(os="linux", architecture="")


async def pull(storage: Storage, source: MemorySource, seen: list[LayerProgress] | None = None) -> Image:
    report = (seen if seen is not None else []).append
    return (await storage.images.pull(source, "latest", LINUX, name="box:1", report=report)).image


def content(root: Path) -> dict[str, list[str]]:
    return {path.name: sorted(each.name for each in path.iterdir()) for path in (root / "content").iterdir()}


def estargz(data: bytes) -> bytes:
    """Several gzip members, one after the other."""
    return b"".join(gzipped(data[at : at + 70_000]) for at in range(0, len(data), 70_000))


@pytest.mark.parametrize("pack", [gzipped, zstandard.ZstdCompressor().compress, estargz, bytes])
async def test_image_is_pulled_and_unpacked(tmp_path: Path, pack: object) -> None:
    source = MemorySource(IMAGE, pack=pack)  # type: ignore[arg-type]  # one of those above
    seen: list[LayerProgress] = []
    async with open_storage(tmp_path) as storage:
        image = await pull(storage, source, seen)
        assert (image.id, image.config, image.names) == (IMAGE.id, IMAGE.config_json, ("box:1",))
        assert await storage.images.list() == [image]
    assert content(tmp_path) == {"blobs": [], "partial": []}
    trees = [tmp_path / "layers" / layer.removeprefix("sha256:") / "fs" for layer in image.layers]
    base = (trees[0] / "etc/base").stat()
    assert (base.st_mode & 0o7777, base.st_uid, base.st_gid) == (0o4755, 5, 6)
    assert (trees[1] / "data/noise").read_bytes() == NOISE
    assert (trees[1] / "data/again").samefile(trees[1] / "data/noise")
    assert (trees[2] / "etc/base").is_char_device()
    assert os.getxattr(trees[2] / "data", "trusted.overlay.opaque") == b"y"
    last = {progress.digest: progress for progress in seen}
    assert all((each.phase, each.done) == (LayerPhase.DONE, each.total) for each in last.values())
    of_middle = [each for each in seen if each.digest == source.layers[1].digest]
    phases = [LayerPhase.WAITING, LayerPhase.DOWNLOADING, LayerPhase.UNPACKING, LayerPhase.DONE]
    assert list(dict.fromkeys(each.phase for each in of_middle)) == phases
    assert sorted(each.done for each in of_middle) == [each.done for each in of_middle]


async def test_shared_layers_and_the_same_image_are_not_downloaded_again(tmp_path: Path) -> None:
    first = MemorySource(BuiltImage(layers=[BASE, MIDDLE]))
    second = MemorySource(IMAGE)
    async with open_storage(tmp_path) as storage:
        await pull(storage, first)
        seen: list[LayerProgress] = []
        await pull(storage, second, seen)
        layers = {layer.digest for layer in second.layers}
        assert {name for name in second.sent if name in layers} == {second.layers[2].digest}
        assert [each.phase for each in seen if each.digest == second.layers[0].digest][-1] is LayerPhase.EXISTS
        again = MemorySource(IMAGE)
        await pull(storage, again)
        assert not layers & set(again.sent)


async def test_download_goes_on_where_it_broke(tmp_path: Path) -> None:
    source = MemorySource(IMAGE)
    middle = source.layers[1]
    source.break_after[middle.digest] = 3 << 19
    async with open_storage(tmp_path) as storage:
        with pytest.raises(Unavailable):
            await pull(storage, source)
        assert await storage.images.list() == []
    assert middle.digest.replace(":", "-") in content(tmp_path)["partial"]
    async with open_storage(tmp_path) as storage:
        assert [path.name for path in (tmp_path / "layers").iterdir()] == []
        again = MemorySource(IMAGE)
        assert (await pull(storage, again)).id == IMAGE.id
    assert 0 < again.sent[middle.digest] < middle.size - (1 << 20)
    finished = {layer.digest for layer in source.layers if source.sent[layer.digest] == layer.size}
    assert not finished & set(again.sent)
    assert content(tmp_path) == {"blobs": [], "partial": []}


async def test_partial_download_that_a_power_cut_spoilt_is_made_anew(tmp_path: Path) -> None:
    source = MemorySource(IMAGE)
    middle = source.layers[1]
    async with open_storage(tmp_path) as storage:
        (tmp_path / "content/partial" / middle.digest.replace(":", "-")).write_bytes(bytes(4096))
        assert (await pull(storage, source)).id == IMAGE.id
    assert source.opened[middle.digest] == 2
    assert source.sent[middle.digest] == 2 * middle.size - 4096


async def test_wrong_bytes_are_refused_and_nothing_of_them_stays(tmp_path: Path) -> None:
    source = MemorySource(IMAGE)
    victim = source.layers[1]
    for lie in (bytes(victim.size), b"x" * (victim.size + 1)):
        source.lie[victim.digest] = lie
        async with open_storage(tmp_path) as storage:
            with pytest.raises(InvalidArgument) as refused:
                await pull(storage, source)
            assert refused.value.reason == "CORRUPT_IMAGE"
            assert victim.digest in refused.value.message
            await storage.trash.emptied()
            assert await storage.images.list() == []
        assert victim.digest.replace(":", "-") not in str(content(tmp_path))
    short = MemorySource(IMAGE)
    short.lie[victim.digest] = short.blobs[victim.digest][:-1]
    async with open_storage(tmp_path) as storage:
        with pytest.raises(Unavailable, match="repeat the pull"):
            await pull(storage, short)


async def test_layer_that_is_not_the_configs_is_refused(tmp_path: Path) -> None:
    source = MemorySource(IMAGE)
    source.layers = [source.layers[1], source.layers[0], source.layers[2]]
    async with open_storage(tmp_path) as storage:
        with pytest.raises(InvalidArgument, match="diff id"):
            await pull(storage, source)
        source.layers = source.layers[:2]
        with pytest.raises(InvalidArgument, match="2 layers"):
            await pull(storage, source)
        source.layers = [Descriptor(media_type="", digest="sha256:../../x", size=1), *source.layers]
        with pytest.raises(InvalidArgument, match="not a digest"):
            await pull(storage, source)


async def test_caps_and_the_disk(tmp_path: Path) -> None:
    for limits in (
        StorageLimits(pull=PullLimits(layer=1000)),
        StorageLimits(pull=PullLimits(image=1000)),
        StorageLimits(image=ImageCaps(unpacked=1000)),
        StorageLimits(image=ImageCaps(entries=9)),  # of ten, and no layer has more than four
        StorageLimits(unpack=UnpackLimits(entries=2)),
    ):
        async with open_storage(tmp_path, limits=limits) as storage:
            with pytest.raises(ResourceExhausted) as refused:
                await pull(storage, MemorySource(IMAGE))
            assert refused.value.reason in ("IMAGE_TOO_LARGE", "TOO_MANY_ENTRIES")
            if limits.pull == PullLimits():
                with pytest.raises(ResourceExhausted):
                    await storage.images.load(stream(docker_archive(IMAGE)))
            assert await storage.images.list() == []
            await storage.trash.emptied()
            assert [*(tmp_path / "layers").iterdir(), *(tmp_path / "staging").iterdir()] == []
            assert content(tmp_path) == {"blobs": [], "partial": []}
    async with open_storage(tmp_path, limits=StorageLimits(image=ImageCaps(entries=10))) as storage:
        await pull(storage, MemorySource(IMAGE))
        # Known of layers that are here, over a restart too.
    async with open_storage(tmp_path, limits=StorageLimits(image=ImageCaps(entries=9))) as storage:
        with pytest.raises(ResourceExhausted, match="entries"):
            await pull(storage, MemorySource(IMAGE))


async def test_a_layer_is_refused_as_soon_as_it_makes_the_image_too_large(tmp_path: Path) -> None:
    """Not when it is whole: what comes after the file that is too much is not looked at. Entries are told a thousand at
    a time."""
    broken = member("../outside", b"")
    large = tar([member("small", b"x"), member("large", NOISE), broken])
    many = tar([*(member(f"f{number}") for number in range(1100)), broken])
    for layer, caps in ((large, ImageCaps(unpacked=len(NOISE))), (many, ImageCaps(entries=1000))):
        image = BuiltImage(layers=[BASE, layer])
        async with open_storage(tmp_path, limits=StorageLimits(image=caps)) as storage:
            for taking in (
                pull(storage, MemorySource(image)),
                storage.images.load(stream(docker_archive(image))),
                storage.images.import_rootfs(stream(layer), config={}, step=Step()),
            ):
                with pytest.raises(ResourceExhausted) as refused:
                    await taking
                assert refused.value.reason == "IMAGE_TOO_LARGE"
            await storage.trash.emptied()
            assert [*(tmp_path / "layers").iterdir(), *(tmp_path / "staging").iterdir()] == []
            assert content(tmp_path) == {"blobs": [], "partial": []}


async def test_the_disk(tmp_path: Path) -> None:
    source = MemorySource(IMAGE)
    source.layers = [
        Descriptor(media_type="", digest=each.digest, size=10 << 30 if at == 1 else each.size)
        for at, each in enumerate(source.layers)
    ]
    free = os.statvfs(tmp_path)
    reserve = free.f_bavail * free.f_frsize - (1 << 30)
    async with open_storage(tmp_path, limits=StorageLimits(content=ContentLimits(reserve=reserve))) as storage:
        with pytest.raises(ResourceExhausted) as full:
            await pull(storage, source)
        assert full.value.reason == "DISK_FULL"
        assert not set(source.sent) & {layer.digest for layer in source.layers}


async def test_canceled_pull_leaves_what_it_can_go_on_from(tmp_path: Path) -> None:
    source = MemorySource(IMAGE, hold=True)
    middle = source.layers[1]
    source.break_after[middle.digest] = 1 << 20
    async with open_storage(tmp_path) as storage:
        pulling = asyncio.create_task(pull(storage, source))
        await source.stopped.wait()
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        await storage.trash.emptied()
        assert list((tmp_path / "staging").iterdir()) == []
        assert middle.digest.replace(":", "-") in content(tmp_path)["partial"]
        again = MemorySource(IMAGE)
        await pull(storage, again)
        assert again.sent[middle.digest] < middle.size


async def test_a_registry_that_sends_slowly_delays_no_pull_from_another(tmp_path: Path) -> None:
    slow = MemorySource(IMAGE, hold=True)
    slow.break_after.update(dict.fromkeys((layer.digest for layer in slow.layers), 0))
    other = BuiltImage(layers=[tar([member("other", b"x")])])
    async with open_storage(tmp_path) as storage, asyncio.timeout(60):
        waiting = asyncio.create_task(pull(storage, slow))
        while slow.opened.total() < 4:  # its config and each of its layers
            await asyncio.sleep(0)
        assert (await pull(storage, MemorySource(other))).id == other.id
        slow.go.set()
        assert (await waiting).id == IMAGE.id


async def test_who_waits_for_a_layer_of_another_pull_sees_it_come(tmp_path: Path) -> None:
    first, second = MemorySource(IMAGE, hold=True), MemorySource(BuiltImage(layers=[MIDDLE]))
    middle = first.layers[1]
    first.break_after[middle.digest] = 1 << 20
    arrived: asyncio.Queue[LayerProgress] = asyncio.Queue()
    async with open_storage(tmp_path) as storage:
        making = asyncio.create_task(pull(storage, first))
        await first.stopped.wait()
        waiting = asyncio.create_task(
            storage.images.pull(second, "latest", LINUX, name="other:1", report=arrived.put_nowait)
        )
        async with asyncio.timeout(60):
            seen = [await arrived.get()]
            assert (seen[0].phase, seen[0].done > 0) == (LayerPhase.DOWNLOADING, True)
            first.go.set()
            await asyncio.gather(making, waiting)
        while not arrived.empty():
            seen.append(arrived.get_nowait())
    assert middle.digest not in second.sent
    assert len({each.done for each in seen if each.phase is LayerPhase.DOWNLOADING}) > 1
    phases = [LayerPhase.DOWNLOADING, LayerPhase.UNPACKING, LayerPhase.DONE, LayerPhase.EXISTS]
    assert list(dict.fromkeys(each.phase for each in seen)) == phases


async def test_who_waits_for_a_layer_makes_it_when_the_other_pull_fails(tmp_path: Path) -> None:
    first, second = MemorySource(IMAGE, hold=True), MemorySource(BuiltImage(layers=[MIDDLE]))
    middle = first.layers[1]
    first.break_after[middle.digest] = 1 << 20
    seen: list[LayerProgress] = []
    async with open_storage(tmp_path) as storage:
        making = asyncio.create_task(pull(storage, first))
        await first.stopped.wait()
        waiting = asyncio.create_task(pull(storage, second, seen))
        while not seen:
            await asyncio.sleep(0)
        making.cancel()
        await waiting
        assert making.cancelled()
    assert 0 < second.sent[middle.digest] < middle.size
    assert (seen[0].phase, seen[-1].phase) == (LayerPhase.DOWNLOADING, LayerPhase.DONE)


@pytest.mark.parametrize("step", ["_make_stage", "publish_tree"])
async def test_a_pull_that_is_canceled_while_a_thread_works_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    begun, go = threading.Event(), threading.Event()
    work = getattr(layers, step)

    def slow(*arguments: object) -> None:
        begun.set()
        assert go.wait(60)
        work(*arguments)

    monkeypatch.setattr(layers, step, slow)
    async with open_storage(tmp_path) as storage, asyncio.timeout(60):
        pulling = asyncio.create_task(pull(storage, MemorySource(BuiltImage(layers=[MIDDLE]))))
        assert await asyncio.to_thread(begun.wait, 60)
        pulling.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        await storage.trash.emptied()
        assert [*(tmp_path / "layers").iterdir(), *(tmp_path / "staging").iterdir()] == []


async def test_image_removed_while_another_with_its_layers_is_pulled(tmp_path: Path) -> None:
    source = MemorySource(IMAGE, hold=True)
    source.break_after[source.layers[1].digest] = 1 << 20
    async with open_storage(tmp_path) as storage:
        other = await pull(storage, MemorySource(BuiltImage(layers=[BASE])))
        pulling = asyncio.create_task(pull(storage, source))
        await source.stopped.wait()
        await storage.images.remove(other.id)
        source.go.set()
        image = await pulling
        assert {layer.removeprefix("sha256:") for layer in image.layers} <= {
            each.name for each in (tmp_path / "layers").iterdir()
        }
        assert source.layers[0].digest not in source.sent


async def test_what_nobody_came_back_for_is_deleted(tmp_path: Path) -> None:
    async with ContentStore(tmp_path, limits=ContentLimits()):
        pass
    old, new = digest(b"old").replace(":", "-"), digest(b"new").replace(":", "-")
    for directory_name in ("partial", "blobs"):
        for name in (old, new):
            (tmp_path / "content" / directory_name / name).write_bytes(b"x")
        os.utime(tmp_path / "content" / directory_name / old, (1, 1))
    async with ContentStore(tmp_path, limits=ContentLimits()), asyncio.timeout(60):
        while content(tmp_path) != {"blobs": [new], "partial": [new]}:
            await asyncio.sleep(0.01)
