"""The image store on a real disk: loading, sharing, surviving."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from common.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from executor_service.registry.source import Platform
from executor_service.run import run
from executor_service.storage.image_config import Step
from executor_service.storage.local_images import ArchiveLimits
from executor_service.storage.node import StorageLimits, open_storage
from executor_service.storage.unpack import Unpacker
from tests.fixtures.busybox import busybox_archive, busybox_image, busybox_oci_layout
from tests.fixtures.images import BuiltImage, digest, directory, docker_archive, member, oci_layout, stream, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacks layers with their owners: needs root")

BASE = tar([directory("etc"), member("etc/base", b"base")])
TOP = tar([directory("etc"), member("etc/top", b"top!")])


def _names(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


def _contents(root: Path) -> dict[str, list[str]]:
    return {path.name: _names(path) for path in root.iterdir() if path.is_dir()}


EMPTY: dict[str, list[str]] = {name: [] for name in ("containers", "images", "layers", "staging", "trash")}
EMPTY["content"] = ["blobs", "partial"]


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("outer", [bytes, _gzip, _zstd])
@pytest.mark.parametrize("archive", [busybox_archive, busybox_oci_layout])
async def test_busybox_loads(tmp_path: Path, archive: Callable[[], bytes], outer: Callable[[bytes], bytes]) -> None:
    async with open_storage(tmp_path) as storage:
        (image,) = await storage.images.load(stream(outer(archive())))
        assert image.id == busybox_image().id
        assert image.names == ("busybox:latest",)
        assert image.config == busybox_image().config_json
        assert await storage.images.get(image.id) == image
        assert await storage.images.list() == [image]
        assert await storage.images.disk_usage() == image.size > 1_000_000
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    (layer,) = (tmp_path / "layers").iterdir()
    assert (layer / "fs/bin/sh").samefile(layer / "fs/bin/busybox")
    assert (await run([str(layer / "fs/bin/echo"), "hello"], timeout=60)).stdout == b"hello\n"


@pytest.mark.parametrize(("suffix", "pack"), [("+gzip", _gzip), ("+zstd", _zstd)])
async def test_packed_layers_unpack(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    image = BuiltImage(layers=[BASE, TOP])
    archive = oci_layout(image, media_suffix=suffix, pack={BASE: pack(BASE), TOP: pack(TOP)})
    async with open_storage(tmp_path) as storage:
        (loaded,) = await storage.images.load(stream(archive))
        assert (loaded.id, loaded.size) == (image.id, 8)


async def test_layers_are_shared_and_counted(tmp_path: Path) -> None:
    one, two = BuiltImage(layers=[BASE], names=["one"]), BuiltImage(layers=[BASE, TOP], names=["two"])
    async with open_storage(tmp_path) as storage:
        images = await storage.images.load(stream(docker_archive(one, two)))
        assert [image.names for image in images] == [("one",), ("two",)]
        assert await storage.images.disk_usage() == 8
        await storage.images.remove(one.id)
        await storage.images.remove(one.id)
        assert len(_names(tmp_path / "layers")) == 2
        with pytest.raises(NotFound):
            await storage.images.get(one.id)
        await storage.images.remove(two.id)
        await storage.trash.emptied()
        assert _contents(tmp_path) == EMPTY


async def test_an_image_again_gets_its_new_names(tmp_path: Path) -> None:
    first, second = BuiltImage(layers=[BASE], names=["a"]), BuiltImage(layers=[BASE], names=["b"])
    async with open_storage(tmp_path) as storage:
        await storage.images.load(stream(docker_archive(first)))
        (again,) = await storage.images.load(stream(docker_archive(second)))
        assert again.names == ("b",)
        assert (await storage.images.get(first.id)).names == ("a", "b")


async def test_images_survive_a_restart(tmp_path: Path) -> None:
    async with open_storage(tmp_path) as storage:
        (image,) = await storage.images.load(stream(busybox_archive()))
    async with open_storage(tmp_path) as storage:
        assert await storage.images.list() == [image]
        assert await storage.images.disk_usage() == image.size


async def test_equal_loads_at_once_unpack_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = []
    unpack = Unpacker.unpack

    async def counted(self: Unpacker, *args: Any, **options: Any) -> object:
        unpacked.append(args)
        return await unpack(self, *args, **options)

    monkeypatch.setattr(Unpacker, "unpack", counted)
    async with open_storage(tmp_path) as storage:
        loads = await asyncio.gather(*(storage.images.load(stream(busybox_archive())) for _ in range(8)))
        assert {image.id for (image,) in loads} == {busybox_image().id}
    assert len(unpacked) == 1


def _flipped(archive: bytes, needle: bytes) -> bytes:
    assert archive.count(needle) == 1
    return archive.replace(needle, needle[::-1])


def _with_another_time(packed: bytes) -> bytes:
    """The same content in a gzip stream of another digest."""
    return packed[:4] + b"\x01\x02\x03\x04" + packed[8:]


REFUSED = {
    "docker layer changed": _flipped(docker_archive(BuiltImage(layers=[BASE, TOP])), b"top!"),
    "oci layer changed": _flipped(oci_layout(BuiltImage(layers=[BASE, TOP])), b"top!"),
    "oci blob with another diff id": oci_layout(BuiltImage(layers=[BASE, TOP]), pack={TOP: _gzip(BASE)}),
    "oci blob with another digest": oci_layout(BuiltImage(layers=[BASE, TOP]), pack={TOP: _gzip(TOP)}).replace(
        _gzip(TOP), _with_another_time(_gzip(TOP))
    ),
    "broken gzip layer": oci_layout(BuiltImage(layers=[BASE, TOP]), pack={TOP: _gzip(TOP)[:-10]}),
    "broken zstd layer": oci_layout(BuiltImage(layers=[BASE, TOP]), pack={TOP: b"\x28\xb5\x2f\xfd" + b"x" * 50}),
    "second image hostile": docker_archive(
        BuiltImage(layers=[BASE]), BuiltImage(layers=[BASE, tar([member("../x", b"x")])])
    ),
    "broken outer gzip": _gzip(busybox_archive())[:-5000],
    "outer gzip of noise": b"\x1f\x8b" + bytes(range(256)) * 8,
    "empty": b"",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_nothing_of_a_refused_archive_stays(tmp_path: Path, name: str) -> None:
    async with open_storage(tmp_path) as storage:
        with pytest.raises(InvalidArgument) as refusal:
            await storage.images.load(stream(REFUSED[name]))
        assert refusal.value.reason == "CORRUPT_IMAGE"
        assert await storage.images.list() == []
        await storage.trash.emptied()
        assert _contents(tmp_path) == EMPTY


async def test_archive_bytes_are_capped(tmp_path: Path) -> None:
    limits = StorageLimits(archive=ArchiveLimits(archive_bytes=1 << 20))
    async with open_storage(tmp_path, limits=limits) as storage:
        with pytest.raises(ResourceExhausted):
            await storage.images.load(stream(busybox_archive()))
        bomb = _gzip(bytes(64 << 20))
        assert len(bomb) < 1 << 20
        with pytest.raises(ResourceExhausted):
            await storage.images.load(stream(bomb))
        assert _contents(tmp_path) == EMPTY


async def test_a_cancelled_load_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = docker_archive(BuiltImage(layers=[tar([member("large", bytes(64 << 20))])]))
    loop, unpacking, go = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    unpack = Unpacker.unpack

    async def told(self: Unpacker, *args: Any, room: Callable[[], None], **options: Any) -> object:
        def stands_still() -> None:
            loop.call_soon_threadsafe(unpacking.set)
            assert go.wait(60)
            room()

        return await unpack(self, *args, room=stands_still, **options)

    monkeypatch.setattr(Unpacker, "unpack", told)
    async with open_storage(tmp_path) as storage:
        load = asyncio.create_task(storage.images.load(stream(archive)))
        await unpacking.wait()
        load.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await load
        await storage.trash.emptied()
        assert _contents(tmp_path) == EMPTY


async def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield busybox_archive()[:100_000]
        raise ConnectionResetError

    async with open_storage(tmp_path) as storage:
        with pytest.raises(ConnectionResetError):
            await storage.images.load(broken())
        assert _contents(tmp_path) == EMPTY


async def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    async with open_storage(tmp_path) as storage:
        (image,) = await storage.images.load(stream(busybox_archive()))
    kept = _contents(tmp_path)
    (tmp_path / "staging/half/fs/x").mkdir(parents=True)
    (tmp_path / "images/.half.json.1234").write_text("{")
    (tmp_path / "trash/old").mkdir()
    shutil.copytree(next((tmp_path / "layers").iterdir()), tmp_path / "layers" / ("a" * 64))
    (tmp_path / "layers" / ("b" * 64) / "fs").mkdir(parents=True)
    async with open_storage(tmp_path) as storage:
        await storage.trash.emptied()
        assert _contents(tmp_path) == kept
        assert await storage.images.list() == [image]


async def test_a_broken_record_hides_only_its_image(tmp_path: Path) -> None:
    one, two = BuiltImage(layers=[BASE]), BuiltImage(layers=[TOP])
    async with open_storage(tmp_path) as storage:
        await storage.images.load(stream(docker_archive(one, two)))
    record = tmp_path / "images" / f"{one.id.removeprefix('sha256:')}.json"
    record.write_bytes(record.read_bytes().replace(b"tests", b"tesTs"))
    async with open_storage(tmp_path) as storage:
        assert [image.id for image in await storage.images.list()] == [two.id]
        assert len(_names(tmp_path / "layers")) == 2, "its layers may be needed by whoever repairs it"
        await storage.images.load(stream(docker_archive(one)))
        assert len(await storage.images.list()) == 2
    async with open_storage(tmp_path) as storage:
        assert len(await storage.images.list()) == 2


async def test_an_image_whose_layer_is_gone_is_hidden_until_loaded_again(tmp_path: Path) -> None:
    image = BuiltImage(layers=[BASE, TOP])
    async with open_storage(tmp_path) as storage:
        await storage.images.load(stream(docker_archive(image)))
    (tmp_path / "layers" / digest(TOP).removeprefix("sha256:") / "layer.json").unlink()
    async with open_storage(tmp_path) as storage:
        assert await storage.images.list() == []
        await storage.images.load(stream(docker_archive(image)))
        assert [found.id for found in await storage.images.list()] == [image.id]


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    async with open_storage(tmp_path):
        with pytest.raises(FailedPrecondition, match="another process"):
            async with open_storage(tmp_path):
                pass


async def test_rootfs_imports(tmp_path: Path) -> None:
    rootfs = tar([directory("bin"), member("bin/tool", b"#!", mode=0o755)])
    async with open_storage(tmp_path) as storage:
        image = await storage.images.import_rootfs(stream(_gzip(rootfs)), config={"Cmd": ["/bin/tool"]}, step=Step())
        assert image.layers == (digest(rootfs),)
        config = json.loads(image.config)
        assert config["config"] == {"Cmd": ["/bin/tool"]}
        assert config["rootfs"] == {"type": "layers", "diff_ids": [digest(rootfs)]}
        assert image.created_at == config["created"]
        assert await storage.images.get(image.id) == image
        with pytest.raises(InvalidArgument, match="cut short"):
            await storage.images.import_rootfs(stream(rootfs[:1536]), config={}, step=Step())
    async with open_storage(tmp_path) as storage:
        assert await storage.images.get(image.id) == image


async def test_an_import_that_is_told_when_and_for_what_is_the_same_image_anywhere(tmp_path: Path) -> None:
    rootfs = tar([member("tool", b"#!", mode=0o755)])
    arm = Platform(os="linux", architecture="arm64", variant="v8")
    step = Step(comment="of a board", created="2024-05-06T07:08:09Z")
    made = []
    for name in ("a", "b"):
        async with open_storage(tmp_path / name) as storage:
            images = storage.images
            made.append(await images.import_rootfs(stream(rootfs), config={}, platform=arm, step=step))
    assert made[0] == made[1]
    config = json.loads(made[0].config)
    assert (config["architecture"], config["variant"], config["created"]) == ("arm64", "v8", step.created)
    assert config["history"] == [{"created": step.created, "comment": "of a board"}]


@pytest.mark.parametrize("archive", [docker_archive, oci_layout])
async def test_an_image_for_another_platform_is_loaded_when_asked_for(
    tmp_path: Path, archive: Callable[..., bytes]
) -> None:
    here, there = BuiltImage(layers=[BASE]), BuiltImage(layers=[TOP], architecture="s390x", names=["far:1"])
    platform = Platform(os="linux", architecture="s390x")
    async with open_storage(tmp_path) as storage:
        (loaded,) = await storage.images.load(stream(archive(here, there)), platform)
        assert loaded.id == there.id
        with pytest.raises(InvalidArgument, match="s390x") as refused:
            await storage.images.load(stream(archive(here)), platform)
        assert refused.value.reason == "UNSUPPORTED_PLATFORM"
    async with open_storage(tmp_path) as storage:
        assert [image.id for image in await storage.images.list()] == [there.id]


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is the oracle here")
async def test_what_skopeo_writes_is_the_same_image(tmp_path: Path) -> None:
    source = tmp_path / "busybox.tar"
    source.write_bytes(busybox_archive())
    archives = []
    for transport, name in (("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")):
        target = tmp_path / name
        command = ["skopeo", "copy", "--insecure-policy", "--quiet", f"docker-archive:{source}"]
        copied = await run([*command, f"{transport}:{target}:busybox:latest"], timeout=60)
        assert copied.returncode == 0, copied.message
        archives.append(target.read_bytes())
    async with open_storage(tmp_path / "storage") as storage:
        ids = []
        for archive in archives:
            (image,) = await storage.images.load(stream(archive))
            ids.append(image.layers)
        assert ids == [(digest(busybox_image().layers[0]),)] * 2
