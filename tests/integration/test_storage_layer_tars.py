"""A layer is given out as the very tar it came as, or not at all."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pytest

from common.errors import DataLoss, FailedPrecondition, NotFound
from executor_service.storage.images import ImageStore
from executor_service.storage.node import open_storage
from tests.fixtures import hostile_layers
from tests.fixtures.busybox import busybox_image
from tests.fixtures.images import (
    BuiltImage,
    digest,
    directory,
    docker_archive,
    hardlink,
    member,
    oci_layout,
    stream,
    symlink,
    tar,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacks layers with their owners: needs root")

MEMBERS = [
    directory("etc", mode=0o750, uid=5),
    member("etc/file", b"content" * 1000, pax={"SCHILY.xattr.user.a": "1", "SCHILY.xattr.trusted.b": "2"}),
    member("long/" + "n" * 200, b"x"),
    member("empty"),
    symlink("link", "/etc/file"),
    hardlink("second", "etc/file"),
    member("etc/.wh.gone", b"a mark with a content"),
    member("etc/.wh..wh..opq"),
    member("big", os.urandom(3 << 20)),
]
LAYERS = {
    "pax": tar(MEMBERS),
    "gnu": tar(MEMBERS, format=tarfile.GNU_FORMAT),
    "overwritten": tar([member("a", b"first"), hardlink("b", "a"), member("a", b"second!")]),
    "long end": tar([member("a", b"1")]) + bytes(1 << 20) + b"whatever follows",
    "without end": tar([member("a", b"1" * 512)])[:1024],
    "busybox": busybox_image().layers[0],
    **{f"odd: {name}": layer for name, layer in hostile_layers.harmless("/outside").items()},
}


async def given_out(images: ImageStore, layer: bytes) -> bytes:
    async with images.layer_tar(digest(layer)) as found:
        data = b"".join([chunk async for chunk in found.chunks()])
        assert found.size == len(layer)
    return data


async def test_every_layer_comes_back_byte_for_byte(tmp_path: Path) -> None:
    image = BuiltImage(layers=list(LAYERS.values()))
    packed = oci_layout(image, media_suffix="+gzip", pack={layer: gzip.compress(layer) for layer in image.layers})
    async with open_storage(tmp_path) as storage:
        await storage.images.load(stream(packed))
        for name, layer in LAYERS.items():
            assert await given_out(storage.images, layer) == layer, name
        record = tmp_path / "layers" / digest(LAYERS["pax"]).removeprefix("sha256:") / "tar.zst"
        assert record.stat().st_size < 4096  # the contents are not kept twice
    async with open_storage(tmp_path) as again:
        assert await given_out(again.images, LAYERS["pax"]) == LAYERS["pax"]


async def test_damage_is_told_before_the_last_byte(tmp_path: Path) -> None:
    layer = LAYERS["pax"]
    home = tmp_path / "layers" / digest(layer).removeprefix("sha256:")
    async with open_storage(tmp_path) as storage:
        await storage.images.load(stream(docker_archive(BuiltImage(layers=[layer]))))
        file = home / "fs/etc/file"
        whole = file.read_bytes()
        for damage in (b"CONTENT" + whole[7:], whole[1:]):
            file.write_bytes(damage)
            received = bytearray()
            with pytest.raises(DataLoss, match="cannot be given out as it came"):
                async with storage.images.layer_tar(digest(layer)) as found:
                    async for chunk in found.chunks():
                        received += chunk
            assert len(received) < len(layer)
        file.unlink()
        file.symlink_to("/etc/hostname")
        with pytest.raises(DataLoss):
            await given_out(storage.images, layer)
        (home / "tar.zst").write_bytes(b"no record")
        with pytest.raises(DataLoss):
            await given_out(storage.images, layer)


async def test_layer_stays_while_it_is_given_out(tmp_path: Path) -> None:
    image = BuiltImage(layers=[LAYERS["pax"]])
    async with open_storage(tmp_path) as storage:
        await storage.images.load(stream(docker_archive(image)))
        async with storage.images.layer_tar(digest(LAYERS["pax"])) as found:
            await storage.images.remove(image.id)
            assert b"".join([chunk async for chunk in found.chunks()]) == LAYERS["pax"]
        with pytest.raises(NotFound):
            await given_out(storage.images, LAYERS["pax"])
        assert list((tmp_path / "layers").iterdir()) == []


async def test_layer_of_an_older_store_is_refused_by_name(tmp_path: Path) -> None:
    layer = LAYERS["gnu"]
    home = tmp_path / "layers" / digest(layer).removeprefix("sha256:")
    async with open_storage(tmp_path) as storage:
        await storage.images.load(stream(docker_archive(BuiltImage(layers=[layer]))))
    (home / "layer.json").write_text('{"size": 7}')
    async with open_storage(tmp_path) as storage:
        with pytest.raises(FailedPrecondition) as refusal:
            await given_out(storage.images, layer)
    assert refusal.value.reason == "LAYER_NOT_RECORDED"
