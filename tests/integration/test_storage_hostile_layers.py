"""Hostile layers against the real unpacker: whatever they try, nothing outside their directory is made or changed."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import InvalidArgument, ResourceExhausted, SlipwayError
from executor_service.run import run
from executor_service.storage.refusals import shown
from executor_service.storage.spool import size_of
from executor_service.storage.unpack import Blob, Unpacked, Unpacker, UnpackLimits
from tests.fixtures import hostile_layers
from tests.fixtures.images import EPOCH, directory, hardlink, member, symlink, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes device nodes and owners: needs root")

NAMES = sorted(hostile_layers.refused("/x"))
ODD = sorted(hostile_layers.harmless("/x"))


@pytest.fixture
async def unpacker() -> AsyncIterator[Unpacker]:
    async with Unpacker(limits=UnpackLimits(entries=10_000, bytes=1 << 26, seconds=30)) as made:
        yield made


async def _unpack(unpacker: Unpacker, layer: bytes, target: Path) -> Unpacked:
    with tempfile.TemporaryFile() as file:
        file.write(layer)
        file.flush()
        return await unpacker.unpack(Blob(file=file, offset=0, size=size_of(file)), target, record=Path(os.devnull))


def _tree(root: Path) -> dict[str, tuple[int, int, int, int, bytes]]:
    """Everything below `root` with what an attack would change."""
    seen = {}
    for parent, directories, files in os.walk(root):
        for name in [*directories, *files, "."]:
            path = Path(parent, name)
            found = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
            seen[str(path)] = (found.st_mode, found.st_uid, found.st_nlink, found.st_mtime_ns, content)
    return seen


def _outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_bytes(b"alive")
    (outside / "directory").mkdir(mode=0o755)
    return outside


@pytest.mark.parametrize("victim", ["canary", "new", "directory"])
@pytest.mark.parametrize("name", NAMES)
async def test_hostile_layer_reaches_nothing(unpacker: Unpacker, tmp_path: Path, name: str, victim: str) -> None:
    outside = _outside(tmp_path)
    target = tmp_path / "layer"
    target.mkdir()
    before = _tree(outside)
    with pytest.raises(InvalidArgument) as refusal:
        await _unpack(unpacker, hostile_layers.refused(str(outside / victim))[name], target)
    assert refusal.value.reason == "CORRUPT_IMAGE"
    assert _tree(outside) == before


@pytest.mark.parametrize("name", ODD)
async def test_odd_layer_changes_nothing_outside(unpacker: Unpacker, tmp_path: Path, name: str) -> None:
    outside = _outside(tmp_path)
    target = tmp_path / "layer"
    target.mkdir()
    before = _tree(outside)
    layer = hostile_layers.harmless(str(outside / "canary"))[name]
    await _unpack(unpacker, layer, target)
    assert _tree(outside) == before
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for info in archive:
            found = (target / info.name).lstat()
            assert (found.st_uid, found.st_gid) == (info.uid, info.gid), shown(info.name.encode())
            if info.issym():
                assert str((target / info.name).readlink()) == info.linkname


async def test_metadata_is_kept(unpacker: Unpacker, tmp_path: Path) -> None:
    capability = b"\1\0\0\2\0\x20" + bytes(14)
    long = "/".join(["d" * 200] * 8)
    members = [
        directory("dir", mode=0o2750, uid=7, gid=8, pax={"SCHILY.xattr.user.dir": "v"}),
        member("dir/su", b"x", mode=0o6755, uid=1000, gid=1001),
        member(f"dir/{'n' * 255}", b"y", pax={"mtime": "1700000001.5", "SCHILY.xattr.user.a%b=c": "1=2"}),
        member("dir/cap", b"", mode=0o755, pax={"SCHILY.xattr.security.capability": capability.decode("latin-1")}),
        *(directory(long[: 201 * depth - 1]) for depth in range(1, 9)),
        member(f"{long}/deep", b"z", pax={"SCHILY.xattr.user.k": "v"}),
        symlink("dir/link", "t" * 3000),
        member("big-owner", b"", uid=3_000_000_000),
    ]
    await _unpack(unpacker, tar(members), tmp_path)
    found = (tmp_path / "dir").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime) == (0o2750, 7, 8, EPOCH)
    assert os.getxattr(tmp_path / "dir", "user.dir") == b"v"
    found = (tmp_path / "dir/su").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o6755, 1000, 1001)
    named = tmp_path / "dir" / ("n" * 255)
    assert named.stat().st_mtime_ns == 1_700_000_001_500_000_000
    assert os.listxattr(tmp_path / "dir/cap") == ["security.capability"]
    assert (tmp_path / long / "deep").read_bytes() == b"z"
    assert os.getxattr(tmp_path / long / "deep", "user.k") == b"v"
    assert str((tmp_path / "dir/link").readlink()) == "t" * 3000
    assert (tmp_path / "big-owner").stat().st_uid == 3_000_000_000


async def test_whiteouts_and_opaque_directories_speak_overlay(unpacker: Unpacker, tmp_path: Path) -> None:
    members = [directory("a"), member("a/.wh.gone"), directory("b"), member("b/.wh..wh..opq"), member("b/new", b"x")]
    hostile = member("c", b"", pax={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})
    await _unpack(unpacker, tar([*members, hostile]), tmp_path)
    found = (tmp_path / "a/gone").lstat()
    assert (stat.S_ISCHR(found.st_mode), found.st_rdev) == (True, 0)
    assert os.getxattr(tmp_path / "b", "trusted.overlay.opaque") == b"y"
    assert (tmp_path / "b").stat().st_mtime == EPOCH
    assert os.listxattr(tmp_path / "c") == []


async def test_hard_links_share_their_file(unpacker: Unpacker, tmp_path: Path) -> None:
    await _unpack(unpacker, tar([member("a", b"x"), hardlink("b", "a")]), tmp_path)
    assert (tmp_path / "a").samefile(tmp_path / "b")


async def test_directories_keep_their_last_words(unpacker: Unpacker, tmp_path: Path) -> None:
    """What is put into a directory later changes its time, and its entry may come twice."""
    members = [
        directory("a", mode=0o700, pax={"mtime": "1600000000.25"}),
        directory("b", mode=0o700),
        member("b/x"),
        member("a/late"),
        directory("b", mode=0o755, uid=9),
        member("c/late", pax={"mtime": "1500000000"}),
    ]
    await _unpack(unpacker, tar(members), tmp_path)
    assert (tmp_path / "a").stat().st_mtime == 1_600_000_000.25
    found = (tmp_path / "b").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_mtime) == (0o755, 9, EPOCH)
    assert (tmp_path / "c").stat().st_mtime == 1_500_000_000


async def test_limits_end_the_work(tmp_path: Path) -> None:
    async with Unpacker(limits=UnpackLimits(entries=10, bytes=1 << 20, seconds=30)) as small:
        with pytest.raises(ResourceExhausted, match="more than 10 entries"):
            await _unpack(small, tar(member(f"f{number}") for number in range(11)), tmp_path)
        with pytest.raises(ResourceExhausted, match="more than 1048576 bytes"):
            await _unpack(small, tar([member("large", bytes(2 << 20))]), tmp_path)


async def test_full_disk_is_said(unpacker: Unpacker, tmp_path: Path) -> None:
    mounted = await run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], timeout=60)
    assert mounted.returncode == 0, mounted.message
    try:
        with pytest.raises(SlipwayError) as refusal:
            await _unpack(unpacker, tar([member("large", os.urandom(4 << 20))]), tmp_path)
    finally:
        await run(["umount", str(tmp_path)], timeout=60)
    assert isinstance(refusal.value, ResourceExhausted)
