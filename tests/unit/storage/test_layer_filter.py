"""The filter in front of GNU tar: what it refuses, and how it spells what it lets through."""

from __future__ import annotations

import io
import tarfile
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import InvalidArgument, ResourceExhausted
from executor_service.storage.layer_filter import Filtered, LayerFilter
from executor_service.storage.streams import HashingSource
from tests.fixtures import hostile_layers
from tests.fixtures.images import EPOCH, digest, directory, hardlink, member, symlink, tar


def _filter(layer: bytes, *, max_entries: int = 1000, max_bytes: int = 1 << 24) -> tuple[Filtered, bytes, str]:
    out = bytearray()
    source = HashingSource(io.BytesIO(layer), max_bytes=max_bytes, check=lambda: None)
    filtered = LayerFilter(source, out.extend, max_entries=max_entries, content=lambda name, size: nullcontext()).run()
    return filtered, bytes(out), source.digest()


def _passed(layer: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(_filter(layer)[1])) as archive:
        return {info.name: info for info in archive}


REFUSED = hostile_layers.refused("/outside/canary")


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_layer_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        _filter(REFUSED[name])
    assert refusal.value.reason == "CORRUPT_IMAGE"


@pytest.mark.parametrize("name", hostile_layers.harmless("/outside/canary"))
def test_odd_layer_passes(name: str) -> None:
    filtered, _, _ = _filter(hostile_layers.harmless("/outside/canary")[name])
    assert filtered.ended


@pytest.mark.parametrize("name", ["negative size", "size of 2^80"])
def test_impossible_sizes_are_named(name: str) -> None:
    with pytest.raises(InvalidArgument, match="has a size of"):
        _filter(REFUSED[name])


def test_entries_are_capped_with_extended_headers_counted() -> None:
    layer = tar(member(f"f{number}", pax={"comment": "x"}) for number in range(6))
    _filter(layer, max_entries=12)
    with pytest.raises(ResourceExhausted, match="more than 11 entries"):
        _filter(layer, max_entries=11)


def test_bytes_are_capped() -> None:
    layer = tar([member("f", bytes(3 << 20))])
    _filter(layer, max_bytes=4 << 20)
    with pytest.raises(ResourceExhausted, match="limit of this node"):
        _filter(layer, max_bytes=2 << 20)


def test_a_claimed_size_is_not_believed() -> None:
    whole = tar([member("f", bytes(1 << 20))])
    with pytest.raises(InvalidArgument, match="truncated"):
        _filter(whole[: 1 << 19])


def test_diff_id_covers_what_follows_the_end_mark() -> None:
    layer = tar([member("a")]) + b"trailing"
    assert _filter(layer)[2] == digest(layer)


def test_missing_end_mark_is_told() -> None:
    layer = tar([member("a", b"x" * 512)])[:1024]
    assert not _filter(layer)[0].ended


def test_whiteouts_become_null_devices_at_the_end() -> None:
    passed = _passed(tar([directory("etc"), member("etc/.wh.passwd"), member(".wh.gone"), member("etc/hosts", b"x")]))
    assert list(passed) == ["etc", "etc/hosts", "etc/passwd", "gone"]
    for name in ("etc/passwd", "gone"):
        info = passed[name]
        assert (info.type, info.devmajor, info.devminor) == (tarfile.CHRTYPE, 0, 0)


def test_what_the_layer_makes_wins_over_its_whiteout() -> None:
    layer = tar([member(".wh.dir"), directory("dir"), member("dir/new"), member("file"), member(".wh.file")])
    filtered, _, _ = _filter(layer)
    assert filtered.opaque == {b"dir"}
    passed = _passed(layer)
    assert passed["file"].isreg()
    assert passed["dir"].isdir()


def test_opaque_mark_is_reported_not_written() -> None:
    layer = tar([directory("a"), member("a/x"), member("a/.wh..wh..opq"), member(".wh..wh..opq")])
    filtered, _, _ = _filter(layer)
    assert filtered.opaque == {b"a", b""}
    assert list(_passed(layer)) == ["a", "a/x"]


def test_aufs_bookkeeping_is_dropped() -> None:
    assert list(_passed(tar([directory(".wh..wh.plnk"), member(".wh..wh.plnk/1.2"), member(".wh..wh.aufs")]))) == []


def test_overlay_and_foreign_attributes_are_dropped() -> None:
    capability = "\1\0\0\2" + "\0" * 16
    keys = {
        "trusted.overlay.redirect": "/etc",
        "trusted.overlay.opaque": "y",
        "trusted.other": "1",
        "user.overlay.redirect": "/etc",
        "user.kept": "a=b",
        "user.per%cent": "1",
        "security.capability": capability,
        "security.selinux": "x",
        "security.ima": "x",
        "system.posix_acl_access": "x",
    }
    pax = {f"SCHILY.xattr.{key}": value for key, value in keys.items()}
    info = _passed(tar([member("f", b"x", pax=pax)]))["f"]
    assert info.pax_headers == {
        "SCHILY.xattr.user.kept": "a=b",
        "SCHILY.xattr.user.per%25cent": "1",  # GNU tar's escaping
        "SCHILY.xattr.security.capability": capability,
    }


def test_missing_parents_are_made_with_a_plain_mode() -> None:
    passed = _passed(tar([member("a/b/c", b"x")]))
    assert {name: (info.isdir(), info.mode) for name, info in passed.items()} == {
        "a": (True, 0o755),
        "a/b": (True, 0o755),
        "a/b/c": (False, 0o644),
    }


def test_the_root_itself_is_left_alone() -> None:
    assert list(_passed(tar([directory("./", mode=0o700), member("./a")]))) == ["a"]


def test_hard_links_keep_their_meaning() -> None:
    passed = _passed(tar([directory("bin"), member("bin/a", b"x"), hardlink("./bin/b", "./bin/a")]))
    assert (passed["bin/b"].type, passed["bin/b"].linkname) == (tarfile.LNKTYPE, "bin/a")


def test_the_same_symlink_twice_is_one() -> None:
    assert list(_passed(tar([symlink("a", "x"), symlink("a", "x")]))) == ["a"]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_dialect_reads_the_same(format: int) -> None:
    long = "d" * 60 + "/" + "e" * 90
    layer = tar(
        [directory("d" * 60), member(long, b"content", mode=0o4711, uid=1000, gid=2_000_000), symlink("s", "/t")],
        format=format,
    )
    info = _passed(layer)[long]
    assert (info.mode, info.uid, info.gid, info.size, info.mtime) == (0o4711, 1000, 2_000_000, 7, EPOCH)


def test_large_numbers_and_fractions_survive() -> None:
    layer = tar([member("f", b"x", uid=4_000_000_000, pax={"mtime": "1700000000.123456789"})])
    info = _passed(layer)["f"]
    assert info.uid == 4_000_000_000
    assert info.pax_headers["mtime"] == "1700000000.123456789"


@pytest.mark.parametrize("mtime", ["-5", "99999999999999"])
def test_times_out_of_range_become_the_epoch(mtime: str) -> None:
    assert _passed(tar([member("f", pax={"mtime": mtime})]))["f"].mtime == 0


def test_global_headers_are_ignored() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "/evil"}) as archive:
        archive.addfile(tarfile.TarInfo("good"))
    assert list(_passed(buffer.getvalue())) == ["good"]


@given(st.binary(max_size=2048))
def test_noise_is_refused_or_passes_but_never_crashes(noise: bytes) -> None:
    try:
        _filter(noise)
    except InvalidArgument as refusal:
        assert refusal.reason == "CORRUPT_IMAGE"


@given(st.integers(0, 1535), st.binary(min_size=1, max_size=24))
def test_a_damaged_layer_is_refused_or_passes_but_never_crashes(position: int, damage: bytes) -> None:
    layer = bytearray(tar([directory("a"), member("a/b", b"x", pax={"SCHILY.xattr.user.k": "v"})]))
    layer[position : position + len(damage)] = damage
    try:
        _filter(bytes(layer))
    except InvalidArgument as refusal:
        assert refusal.reason == "CORRUPT_IMAGE"
