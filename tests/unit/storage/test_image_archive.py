"""Finding images in archives, and what makes one unfit."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import InvalidArgument
from executor_service.registry.source import Platform
from executor_service.storage.archive import Archive
from executor_service.storage.image_archive import ArchivedImage, images_in
from executor_service.storage.image_config import MAX_LAYERS, Step, config_of_rootfs, parse_config
from tests.fixtures.images import (
    ARCHITECTURE,
    BuiltImage,
    descriptor,
    digest,
    directory,
    docker_archive,
    hardlink,
    member,
    oci_layout,
    oci_tar,
    symlink,
    tar,
)

LAYER = tar([member("a", b"content")])
IMAGE = BuiltImage(layers=[LAYER], names=["one:latest"])
HERE = Platform(os="linux", architecture=ARCHITECTURE)
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], list[ArchivedImage]]:
    path = tmp_path_factory.mktemp("archive") / "archive"

    def images(data: bytes) -> list[ArchivedImage]:
        path.write_bytes(data)
        with path.open("r+b") as file:
            return images_in(Archive(file), platform=HERE)

    return images


Read = Callable[[bytes], list[ArchivedImage]]


def _manifest(image: BuiltImage) -> bytes:
    config = descriptor(image.config_json, "application/vnd.oci.image.config.v1+json")
    layers = [descriptor(layer, "application/vnd.oci.image.layer.v1.tar") for layer in image.layers]
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode()


@pytest.mark.parametrize("archive", [docker_archive, oci_layout])
def test_both_layouts_give_the_same_image(read: Read, archive: Callable[[BuiltImage], bytes]) -> None:
    (image,) = read(archive(IMAGE))
    assert (image.config.id, image.config.data, image.names) == (IMAGE.id, IMAGE.config_json, ("one:latest",))
    assert image.config.diff_ids == (digest(LAYER),)


def test_several_images_and_names_of_one(read: Read) -> None:
    other = BuiltImage(layers=[], config={"Cmd": ["x"]}, names=["two:latest"])
    again = BuiltImage(layers=[LAYER], names=["one:again"])
    images = read(docker_archive(IMAGE, other, again))
    assert {image.config.id: image.names for image in images} == {
        IMAGE.id: ("one:latest", "one:again"),
        other.id: ("two:latest",),
    }


def test_old_docker_archives_link_equal_layers(read: Read) -> None:
    image = BuiltImage(layers=[LAYER, LAYER, LAYER])
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"]}]
    data = tar(
        [
            member("c.json", image.config_json),
            member("1/layer.tar", LAYER),
            symlink("2/layer.tar", "../1/layer.tar"),
            hardlink("3/layer.tar", "2/layer.tar"),
            member("manifest.json", json.dumps(manifest).encode()),
        ]
    )
    (found,) = read(data)
    assert {(blob.offset, blob.size) for blob in found.layers} == {(found.layers[0].offset, len(LAYER))}


def test_nested_index_gives_the_manifest_of_this_platform(read: Read) -> None:
    foreign = BuiltImage(layers=[LAYER], architecture="vax")
    manifests = [
        {**descriptor(_manifest(image), MANIFEST), "platform": {"os": "linux", "architecture": image.architecture}}
        for image in (foreign, IMAGE)
    ]
    attestation = {**descriptor(b"{}", MANIFEST), "platform": {"os": "unknown", "architecture": "unknown"}}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [attestation, *manifests]}).encode()
    blobs = [LAYER, IMAGE.config_json, foreign.config_json, _manifest(IMAGE), _manifest(foreign), index, b"{}"]
    (found,) = read(oci_tar(blobs, [descriptor(index, INDEX)]))
    assert found.config.id == IMAGE.id


def test_a_variant_is_looked_for_where_an_index_tells_them_apart(tmp_path: Path) -> None:
    variants = ("v6", "v7")
    boards = [BuiltImage(layers=[LAYER], architecture="arm", config={"Cmd": [each]}) for each in variants]
    manifests = [
        {
            **descriptor(_manifest(image), MANIFEST),
            "platform": {"os": "linux", "architecture": "arm", "variant": variant},
        }
        for image, variant in zip(boards, variants, strict=True)
    ]
    path = tmp_path / "archive"
    path.write_bytes(oci_tar([LAYER, *(each.config_json for each in boards), *map(_manifest, boards)], manifests))
    with path.open("rb") as file:
        (found,) = images_in(Archive(file), platform=Platform(os="linux", architecture="arm", variant="v7"))
        assert found.config.id == boards[1].id
        with pytest.raises(InvalidArgument, match="no image for linux/arm/v5") as refusal:
            images_in(Archive(file), platform=Platform(os="linux", architecture="arm", variant="v5"))
    assert refusal.value.reason == "UNSUPPORTED_PLATFORM"


@pytest.mark.parametrize("image", [BuiltImage(layers=[], architecture="vax"), BuiltImage(layers=[], os="windows")])
@pytest.mark.parametrize("archive", [docker_archive, oci_layout])
def test_other_platforms_are_refused_by_name(
    read: Read, image: BuiltImage, archive: Callable[[BuiltImage], bytes]
) -> None:
    with pytest.raises(InvalidArgument, match=f"linux/{ARCHITECTURE}") as refusal:
        read(archive(image))
    assert refusal.value.reason == "UNSUPPORTED_PLATFORM"


@pytest.mark.parametrize("archive", [docker_archive, oci_layout])
def test_what_is_for_other_platforms_is_passed_over(read: Read, archive: Callable[..., bytes]) -> None:
    foreign = BuiltImage(layers=[LAYER], architecture="vax", names=["one:latest"])
    (found,) = read(archive(foreign, IMAGE))
    assert found.config.id == IMAGE.id


@pytest.mark.parametrize("archive", [docker_archive, oci_layout])
def test_a_layout_may_lie_in_one_directory(read: Read, archive: Callable[..., bytes]) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(IMAGE))) as packed:
        inner = [(info, stream.read()) for info in packed if (stream := packed.extractfile(info))]
    for info, _ in inner:
        info.name = f"./layout/{info.name}"
    (found,) = read(tar([directory("layout"), *inner]))
    assert (found.config.id, found.names) == (IMAGE.id, tuple(IMAGE.names))
    with pytest.raises(InvalidArgument, match="neither"):
        read(tar([member("layout-2/other"), *inner]))


def _swapped(old: bytes, new: bytes) -> bytes:
    assert len(old) == len(new)
    data = oci_layout(IMAGE)
    assert old in data
    return data.replace(old, new)


def _index_in_index() -> bytes:
    blob = b"{}"
    blobs = []
    for _ in range(6):
        blob = json.dumps({"mediaType": INDEX, "manifests": [descriptor(blob, INDEX)]}).encode()
        blobs.append(blob)
    return oci_tar(blobs, [descriptor(blob, INDEX)])


def _docker(manifest: object) -> bytes:
    return tar([member("manifest.json", json.dumps(manifest).encode()), member("c.json", IMAGE.config_json)])


CORRUPT = {
    "not an archive of images": tar([member("x")]),
    "not a tar": b"\x7fELF" * 400,
    "manifest of text": tar([member("manifest.json", b"hello")]),
    "manifest too deep": tar([member("manifest.json", b"[" * 100_000)]),
    "manifest too large": tar([member("manifest.json", b" " * (5 << 20))]),
    "manifest an object": _docker({}),
    "manifest of numbers": _docker([1, 2]),
    "no config": _docker([{"Layers": []}]),
    "config missing": _docker([{"Config": "../../etc/passwd", "Layers": []}]),
    "config named otherwise": _docker([{"Config": "c.json", "Layers": ["x"]}]),
    "layers a word": _docker([{"Config": "c.json", "Layers": "abc"}]),
    "fewer layers than diff ids": _docker([{"Config": "c.json", "Layers": []}]),
    "names a number": _docker([{"Config": "c.json", "Layers": ["c.json"], "RepoTags": [3]}]),
    "name with a newline": _docker([{"Config": "c.json", "Layers": ["c.json"], "RepoTags": ["a\nb"]}]),
    "config by another digest": tar(
        [
            member("manifest.json", json.dumps([{"Config": f"{'0' * 64}.json", "Layers": []}]).encode()),
            member(f"{'0' * 64}.json", BuiltImage(layers=[]).config_json),
        ]
    ),
    "link loop": tar(
        [
            member("manifest.json", json.dumps([{"Config": "a", "Layers": []}]).encode()),
            symlink("a", "b"),
            symlink("b", "a"),
        ]
    ),
    "config blob changed": _swapped(b'"created_by":"tests"', b'"created_by":"tesTs"'),
    "manifest blob changed": _swapped(b'"schemaVersion":2}', b'"schemaVersion":3}'),
    "blob missing": oci_tar([], [descriptor(b"x", MANIFEST)]),
    "digest with a path": oci_tar([], [{"digest": "sha256:../../../etc/passwd", "mediaType": MANIFEST}]),
    "index without end": _index_in_index(),
    "truncated": docker_archive(IMAGE)[:700],
}


@pytest.mark.parametrize("name", CORRUPT)
def test_corrupt_archive_is_refused(read: Read, name: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        read(CORRUPT[name])
    assert refusal.value.reason == "CORRUPT_IMAGE"


def _config(**changes: object) -> bytes:
    base: dict[str, object] = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}
    return json.dumps(base | changes).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"\xff",
        b'{"a": ' + b"9" * 5000 + b"}",
        _config(rootfs=None),
        _config(rootfs={"diff_ids": "sha256:"}),
        _config(rootfs={"diff_ids": ["sha256:" + "A" * 64]}),
        _config(rootfs={"diff_ids": ["sha256:" + "a" * 64 + "/../x"]}),
        _config(rootfs={"diff_ids": ["sha256:" + "a" * 64] * (MAX_LAYERS + 1)}),
    ],
)
def test_corrupt_config_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        parse_config(data, architecture="amd64")
    assert refusal.value.reason == "CORRUPT_IMAGE"


def test_config_of_a_rootfs_is_an_image_config() -> None:
    data = config_of_rootfs({"Cmd": ["sh"]}, diff_id="sha256:" + "a" * 64, platform=HERE, step=Step())
    parsed = parse_config(data, architecture=ARCHITECTURE)
    assert parsed.diff_ids == ("sha256:" + "a" * 64,)
    assert parsed.created.endswith("Z")
    assert json.loads(data)["config"] == {"Cmd": ["sh"]}


def test_config_that_is_no_json_is_the_callers_fault() -> None:
    with pytest.raises(InvalidArgument, match="not a JSON object"):
        config_of_rootfs({"Cmd": object()}, diff_id="sha256:" + "a" * 64, platform=HERE, step=Step())


def test_indexes_that_name_each_other_over_and_over_take_no_time(read: Read) -> None:
    """A thousand times a thousand times a thousand, in a few kilobytes."""
    blobs: list[bytes] = [json.dumps({"mediaType": INDEX, "manifests": []}).encode()]
    for _ in range(3):
        entries = [descriptor(blobs[-1], INDEX)] * 1000
        blobs.append(json.dumps({"mediaType": INDEX, "manifests": entries}).encode())
    begun = time.process_time()
    with pytest.raises(InvalidArgument, match="no image for"):
        read(oci_tar(blobs, [descriptor(blobs[-1], INDEX)]))
    assert time.process_time() - begun < 5
