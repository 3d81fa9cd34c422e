"""Images on a disk that is too small for them: refused before it is full, and while it fills, and all of it is back."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from common.errors import ResourceExhausted, Unavailable
from executor_service.registry.source import Platform
from executor_service.storage import image_records, spool
from executor_service.storage.content import ContentLimits
from executor_service.storage.image_config import Step
from executor_service.storage.images import Image
from executor_service.storage.node import Storage, StorageLimits, open_storage
from tests.fixtures.image_source import MemorySource
from tests.fixtures.images import BuiltImage, directory, docker_archive, member, stream, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

SIZE = 64 << 20  # bytes of the disk
RESERVE = 16 << 20
INODES = 4096
LIMITS = StorageLimits(content=ContentLimits(reserve=RESERVE))
SMALL = BuiltImage(layers=[tar([member("small", b"x" * 1000)])])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    options = f"size={SIZE},nr_inodes={INODES},mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "slipway-test", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def free(disk: Path) -> int:
    facts = os.statvfs(disk)
    return facts.f_bavail * facts.f_frsize


def noise(name: str, size: int) -> bytes:
    return tar([directory("data"), member(f"data/{name}", random.Random(name).randbytes(size))])


@contextmanager
def lowest_free(disk: Path) -> Iterator[list[int]]:
    """Watched by a thread of its own; the one number is good after the block."""
    seen, done = [SIZE], threading.Event()

    def watch() -> None:
        while not done.wait(0.001):
            seen[0] = min(seen[0], free(disk))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


async def pull(storage: Storage, source: MemorySource) -> Image:
    platform = Platform(os="linux", architecture="")
    pulled = await storage.images.pull(source, "1", platform, name="", report=lambda _: None)
    return pulled.image


async def test_an_image_that_does_not_fit_is_not_begun(disk: Path) -> None:
    source = MemorySource(BuiltImage(layers=[noise("a", 14 << 20), noise("b", 14 << 20)]))
    async with open_storage(disk, limits=LIMITS) as storage:
        with pytest.raises(ResourceExhausted) as refused:
            await pull(storage, source)
        assert refused.value.reason == "DISK_FULL"
        assert not {layer.digest for layer in source.layers} & set(source.sent)
        assert (await pull(storage, MemorySource(SMALL))).id == SMALL.id


@pytest.mark.parametrize("way", ["pull", "load", "import"])
async def test_one_that_grows_too_large_is_stopped_while_it_is_unpacked(disk: Path, way: str) -> None:
    # Nothing says beforehand how large these are: a thousandth of it is sent.
    large = BuiltImage(layers=[tar([member("zeros", bytes(60 << 20))])])
    source = MemorySource(large)
    archive = source.blobs[source.layers[0].digest] if way == "import" else docker_archive(SMALL)
    async with open_storage(disk, limits=LIMITS) as storage:
        before = free(disk)
        with lowest_free(disk) as lowest, pytest.raises(ResourceExhausted) as refused:
            if way == "pull":
                await pull(storage, source)
            elif way == "load":
                await storage.images.load(stream(docker_archive(large)))
            else:
                await storage.images.import_rootfs(stream(archive), config={}, step=Step())
        assert refused.value.reason == "DISK_FULL"
        assert lowest[0] > RESERVE // 2  # a few buffers are on their way when it is seen
        await storage.trash.emptied()
        assert free(disk) > before - (1 << 20)
        assert await storage.images.list() == []
        assert [image.id for image in await storage.images.load(stream(docker_archive(SMALL)))] == [SMALL.id]


async def test_files_without_end_are_stopped_before_the_inodes_are(disk: Path) -> None:
    many = BuiltImage(layers=[tar(member(f"f{number}", b"x" * 600) for number in range(2 * INODES))])
    async with open_storage(disk, limits=LIMITS) as storage:
        before = os.statvfs(disk).f_favail
        with pytest.raises(ResourceExhausted, match="inodes left"):
            await pull(storage, MemorySource(many))
        await storage.trash.emptied()
        assert os.statvfs(disk).f_favail > before - 50
        assert (await pull(storage, MemorySource(SMALL))).id == SMALL.id


async def test_what_interrupted_pulls_left_makes_room(disk: Path) -> None:
    first, second = noise("first", 18 << 20), noise("second", 18 << 20)
    broken = MemorySource(BuiltImage(layers=[first]))
    broken.break_after[broken.layers[0].digest] = 17 << 20
    async with open_storage(disk, limits=LIMITS) as storage:
        with pytest.raises(Unavailable):
            await pull(storage, broken)
        (partial,) = (disk / "content/partial").iterdir()
        assert partial.stat().st_size > 16 << 20
        assert (await pull(storage, MemorySource(BuiltImage(layers=[second])))).size >= 18 << 20
        assert not partial.exists()


@pytest.mark.parametrize(
    ("way", "module", "step"), [("pull", image_records, "write_durably"), ("load", spool, "unnamed_file")]
)
async def test_a_disk_that_became_read_only_is_told_as_such(
    disk: Path, monkeypatch: pytest.MonkeyPatch, way: str, module: ModuleType, step: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    async with open_storage(disk, limits=LIMITS) as storage:
        with monkeypatch.context() as broken, pytest.raises(Unavailable, match="read-only; look at the disk"):
            broken.setattr(module, step, refuse)
            if way == "pull":
                await pull(storage, MemorySource(SMALL))
            else:
                await storage.images.load(stream(docker_archive(SMALL)))
        assert (await pull(storage, MemorySource(SMALL))).id == SMALL.id


async def test_what_a_pull_left_of_its_own_layers_is_not_given_up_for_it(disk: Path) -> None:
    own, more = noise("own", 11 << 20), noise("more", 12 << 20)
    broken = MemorySource(BuiltImage(layers=[own]))
    broken.break_after[broken.layers[0].digest] = 10 << 20
    async with open_storage(disk, limits=LIMITS) as storage:
        with pytest.raises(Unavailable):
            await pull(storage, broken)
        (partial,) = (disk / "content/partial").iterdir()
        size = partial.stat().st_size
        (disk / "other").write_bytes(bytes(6 << 20))
        with pytest.raises(ResourceExhausted) as refused:
            await pull(storage, MemorySource(BuiltImage(layers=[own, more])))
        assert refused.value.reason == "DISK_FULL"
        assert partial.stat().st_size == size
