"""Any bytes as an image's config, archive or layer: a value or an error of ours, in bounded time and memory."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from common.errors import SlipwayError
from executor_service.registry.source import Platform
from executor_service.storage.archive import Archive
from executor_service.storage.image_archive import images_in
from executor_service.storage.image_config import Step, config_of_commit, parse_config
from executor_service.storage.image_record import image_from_json, image_to_json
from executor_service.storage.images import Image
from executor_service.storage.layer_filter import LayerFilter
from executor_service.storage.streams import HashingSource, Window, decompressed
from tests.fixtures.damage import damaged, patient, told
from tests.fixtures.images import ARCHITECTURE, BuiltImage, member, oci_tar, tar

LAYER = tar([member("a", b"content")])
BUILT = BuiltImage(layers=[LAYER, LAYER], names=["one:latest"], config={"Cmd": ["sh"], "Env": ["A=b"]})
CONFIG = json.loads(BUILT.config_json)
REFUSED = {"CORRUPT_IMAGE", "UNSUPPORTED_PLATFORM", "IMAGE_TOO_LARGE", "TOO_MANY_ENTRIES"}
MEMBERS = 50


@patient
@given(damaged(CONFIG) | st.binary())
def test_any_config(data: bytes) -> None:
    try:
        config = parse_config(data, architecture=ARCHITECTURE)
    except SlipwayError as error:
        assert told(error) in REFUSED
        return
    image = Image(
        id=config.id, config=config.data, layers=config.diff_ids, size=1, created_at=config.created, names=("n:1",)
    )
    assert image_from_json(image.id, image_to_json(image)) == image
    try:
        config_of_commit(data, {}, diff_id="sha256:" + "0" * 64, step=Step())
    except SlipwayError as error:
        assert told(error) in {"INVALID_REQUEST", "TOO_MANY_LAYERS"}


@patient
@given(st.binary())
def test_any_record(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        image_from_json("sha256:" + hashlib.sha256(b"x").hexdigest(), data)


def read_archive(data: bytes) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            images_in(Archive(file), platform=Platform(os="linux", architecture=ARCHITECTURE))
        except SlipwayError as error:
            assert told(error) in REFUSED


@patient
@given(damaged([{"Config": "c", "RepoTags": ["a:1", "b:2"], "Layers": ["l", "l"]}]), damaged(CONFIG))
def test_any_archive_of_docker(manifest: bytes, config: bytes) -> None:
    for one, other in ((manifest, BUILT.config_json), (manifest, config)):
        read_archive(tar([member("manifest.json", one), member("c", other), member("l", LAYER)]))


_KIND = "application/vnd.oci.image.manifest.v1+json"


@patient
@given(st.data())
def test_any_layout(data: st.DataObject) -> None:
    def described(blob: bytes, kind: str) -> dict[str, object]:
        return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}

    config = data.draw(damaged(CONFIG) | st.just(BUILT.config_json))
    layers = [described(LAYER, "application/vnd.oci.image.layer.v1.tar")] * 2
    kind = "application/vnd.oci.image.config.v1+json"
    good = {"mediaType": _KIND, "config": described(config, kind), "layers": layers}
    manifest = data.draw(damaged(good) | st.just(json.dumps(good).encode()))
    entry = {**described(manifest, _KIND), "annotations": {"org.opencontainers.image.ref.name": "a:1"}}
    read_archive(oci_tar([config, manifest, LAYER], [entry]))
    broken = data.draw(damaged({"schemaVersion": 2, "manifests": [entry]}))
    blobs = [member(f"blobs/sha256/{hashlib.sha256(each).hexdigest()}", each) for each in (config, manifest, LAYER)]
    read_archive(tar([*blobs, member("oci-layout", b"{}"), member("index.json", broken)]))


_kinds = st.sampled_from([*(bytes([code]) for code in b"01234567xgLKSVD"), tarfile.REGTYPE])
_odd = [".wh.a", "a/.wh..wh..opq", "x" * 300]
_names = st.text(st.sampled_from("ab./\\\n\u00e4"), max_size=12) | st.sampled_from(_odd)
_keys = ["path", "linkpath", "size", "mtime", "uid", "GNU.sparse.map", "SCHILY.xattr.user.a"]
_keys += ["SCHILY.xattr.security.capability"]
_members = st.builds(
    lambda name, kind, link, content, mode, uid, pax: member(
        name, content, kind=kind, link=link, mode=mode, uid=uid, pax=pax
    ),
    _names, _kinds, _names, st.binary(max_size=600), st.integers(0, 0o7777), st.integers(0, 2**33),
    st.dictionaries(st.sampled_from(_keys), _names, max_size=2),
)  # fmt: skip


def filter_layer(packed: bytes, *, on_read: Callable[[], None] = lambda: None) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(packed)
        file.flush()
        out = bytearray()
        try:
            with decompressed(Window(file, offset=0, size=len(packed))) as stream:
                source = HashingSource(stream, max_bytes=1 << 20, check=on_read)
                LayerFilter(source, out.extend, max_entries=MEMBERS, content=lambda name, size: nullcontext()).run()
                source.digest()
        except SlipwayError as error:
            assert told(error) in REFUSED
            return
    with tarfile.open(fileobj=io.BytesIO(bytes(out))) as passed:
        for info in passed:
            assert not info.name.startswith("/")
            assert ".." not in info.name.split("/")


@patient
@given(st.lists(_members, max_size=6), st.sampled_from([bytes, gzip.compress, zstandard.ZstdCompressor().compress]))
def test_any_members(members: list[object], pack: object) -> None:
    try:
        layer = tar(members)  # type: ignore[arg-type]  # what `member` makes
    except (ValueError, UnicodeError):
        return  # Python's writer cannot say it
    filter_layer(pack(layer))  # type: ignore[operator]  # one of those above


@patient
@given(st.sampled_from([gzip.compress(LAYER), zstandard.ZstdCompressor().compress(LAYER)]), st.data())
def test_any_damage_of_what_is_packed(packed: bytes, data: st.DataObject) -> None:
    spoilt = bytearray(packed)
    at = data.draw(st.integers(0, len(packed) - 1))
    spoilt[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    filter_layer(bytes(spoilt))
    filter_layer(packed[:at])


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor(level=19).compress])
def test_a_bomb_is_stopped_at_its_limit(pack: object) -> None:
    bomb = pack(tar([member("zeros", bytes(256 << 20))]))  # type: ignore[operator]  # one of those above
    reads = Counter[str]()
    filter_layer(bomb, on_read=lambda: reads.update(["read"]))
    assert reads.total() < 16  # pieces of 256 KiB; the layer has a thousand of them
