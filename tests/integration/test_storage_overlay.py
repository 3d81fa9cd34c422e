"""Container roots on the real overlayfs."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import FailedPrecondition, InvalidArgument, NotFound
from executor_service.run import run
from executor_service.storage.image_config import MAX_LAYERS
from executor_service.storage.node import Storage, open_storage
from tests.fixtures.images import BuiltImage, Member, directory, docker_archive, member, stream, symlink, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts overlayfs: needs root")

SKELETON = {
    ".dockerenv": stat.S_IFREG,
    "dev/console": stat.S_IFREG,
    "dev/pts": stat.S_IFDIR,
    "dev/shm": stat.S_IFDIR,
    "etc/hostname": stat.S_IFREG,
    "etc/hosts": stat.S_IFREG,
    "etc/mtab": stat.S_IFLNK,
    "etc/resolv.conf": stat.S_IFREG,
    "proc": stat.S_IFDIR,
    "sys": stat.S_IFDIR,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """On the disk, at a path that overlay's option syntax would have to escape."""
    path = tmp_path / "a:b,c\\d lowerdir=x"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def _no_mount_left(tmp_path: Path) -> Iterator[None]:
    yield
    left = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]
    assert left == []


def _names(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


def _id() -> str:
    return secrets.token_hex(32)


async def _load(storage: Storage, *layers: list[Member]) -> str:
    image = BuiltImage(layers=[tar(layer) for layer in layers])
    return (await storage.images.load(stream(docker_archive(image))))[0].id


async def _mounted(storage: Storage, *layers: list[Member]) -> tuple[str, Path]:
    image, container = await _load(storage, *layers), _id()
    await storage.snapshots.prepare(container, image)
    return container, await storage.snapshots.mount(container)


async def test_layers_stack_with_whiteouts(root: Path) -> None:
    base = [
        directory("d"),
        member("d/kept", b"1"),
        member("d/gone", b"1"),
        directory("o"),
        member("o/old"),
        member("f", b"1"),
    ]
    middle = [directory("d"), member("d/.wh.gone"), directory("o"), member("o/new"), member("o/.wh..wh..opq")]
    top = [member("f", b"3")]
    async with open_storage(root) as storage:
        container, merged = await _mounted(storage, base, middle, top)
        assert _names(merged / "d") == ["kept"]
        assert _names(merged / "o") == ["new"]
        assert (merged / "f").read_bytes() == b"3"
        await storage.snapshots.remove(container)


async def test_opaque_root_hides_all_below(root: Path) -> None:
    async with open_storage(root) as storage:
        container, merged = await _mounted(
            storage, [member("old")], [member("new"), member(".wh..wh..opq")], [member("top")]
        )
        assert {"new", "top"} < set(_names(merged))
        assert "old" not in _names(merged)
        await storage.snapshots.remove(container)


@pytest.mark.parametrize("image", [True, False])
async def test_skeleton_is_dockers(root: Path, image: bool) -> None:
    async with open_storage(root) as storage:
        container = _id()
        await storage.snapshots.prepare(container, await _load(storage, [member("only")]) if image else "")
        merged = await storage.snapshots.mount(container)
        for name, kind in SKELETON.items():
            found = (merged / name).lstat()
            assert stat.S_IFMT(found.st_mode) == kind, name
            if kind != stat.S_IFLNK:
                assert stat.S_IMODE(found.st_mode) == 0o755, name
        assert str((merged / "etc/mtab").readlink()) == "/proc/mounts"
        assert stat.S_IMODE(merged.stat().st_mode) == 0o755
        await storage.snapshots.remove(container)


async def test_what_the_image_has_stays(root: Path) -> None:
    layer = [
        directory("etc", mode=0o700, uid=5, gid=6),
        member("etc/hosts", b"mine", mode=0o600),
        symlink("etc/resolv.conf", "/run/nowhere"),
        directory("etc/hostname"),
        member("etc/mtab", b"mine"),
        directory("proc", mode=0o555),
    ]
    async with open_storage(root) as storage:
        container, merged = await _mounted(storage, layer)
        found = (merged / "etc").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o700, 5, 6)
        assert (merged / "etc/hosts").read_bytes() == b"mine"
        assert str((merged / "etc/resolv.conf").readlink()) == "/run/nowhere"
        assert (merged / "etc/hostname").is_dir()
        assert (merged / "etc/mtab").read_bytes() == b"mine"
        assert stat.S_IMODE((merged / "proc").stat().st_mode) == 0o555
        await storage.snapshots.remove(container)


@pytest.mark.parametrize("target", ["absolute", "relative", "within"])
async def test_skeleton_writes_through_no_symlink(root: Path, tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    links = {"absolute": str(outside), "relative": "../" * 30 + str(outside)[1:], "within": "elsewhere"}
    async with open_storage(root) as storage:
        container, merged = await _mounted(storage, [directory("elsewhere"), symlink("etc", links[target])])
        assert str((merged / "etc").readlink()) == links[target]
        assert _names(outside) == []
        assert _names(merged / "elsewhere") == []
        await storage.snapshots.remove(container)


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
@pytest.mark.parametrize("kind", ["symlink", "file"])
async def test_unsafe_root_is_not_mounted(root: Path, tmp_path: Path, name: str, kind: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    entry = symlink(name, str(outside)) if kind == "symlink" else member(name, b"")
    async with open_storage(root) as storage:
        image, container = await _load(storage, [entry]), _id()
        await storage.snapshots.prepare(container, image)
        with pytest.raises(FailedPrecondition, match=f"/{name} of the image '{image}'") as refusal:
            await storage.snapshots.mount(container)
        assert refusal.value.reason == "UNSAFE_ROOT"
        assert _names(outside) == []
        await storage.snapshots.remove(container)


async def test_directory_swapped_by_the_container_is_noticed(root: Path) -> None:
    async with open_storage(root) as storage:
        container, merged = await _mounted(storage, [member("x")])
        for name in ("pts", "shm"):
            (merged / "dev" / name).rmdir()
        (merged / "dev/console").unlink()
        (merged / "dev").rmdir()
        (merged / "dev").symlink_to("/etc")
        with pytest.raises(FailedPrecondition, match="/dev"):
            await storage.snapshots.mount(container)
        await storage.snapshots.remove(container)


async def test_every_call_may_be_repeated(root: Path) -> None:
    async with open_storage(root) as storage:
        image, container = await _load(storage, [member("x", b"1")]), _id()
        await storage.snapshots.unmount(container)
        await storage.snapshots.remove(container)
        for _ in range(2):
            await storage.snapshots.prepare(container, image)
        first = await storage.snapshots.mount(container)
        (first / "written").write_bytes(b"mine")
        assert await storage.snapshots.mount(container) == first
        for _ in range(2):
            await storage.snapshots.unmount(container)
        await storage.snapshots.prepare(container, image)
        assert ((await storage.snapshots.mount(container)) / "written").read_bytes() == b"mine"
        assert await storage.snapshots.list() == {container}
        for _ in range(2):
            await storage.snapshots.remove(container)
        assert await storage.snapshots.list() == set()
        with pytest.raises(NotFound):
            await storage.snapshots.mount(container)


async def test_containers_do_not_see_each_other(root: Path) -> None:
    async with open_storage(root) as storage:
        image = await _load(storage, [member("x", b"image")])
        containers = [_id() for _ in range(8)]
        await asyncio.gather(*(storage.snapshots.prepare(container, image) for container in containers))
        roots = await asyncio.gather(*(storage.snapshots.mount(container) for container in containers))
        (roots[0] / "x").write_bytes(b"changed")
        (roots[0] / "etc/hosts").write_bytes(b"changed")
        assert {(path / "x").read_bytes() for path in roots[1:]} == {b"image"}
        assert {(path / "etc/hosts").read_bytes() for path in roots[1:]} == {b""}
        assert len([name for name in _names(root / "layers") if name.startswith("init-")]) == 1
        await asyncio.gather(*(storage.snapshots.remove(container) for container in containers))


async def test_container_outlives_its_image(root: Path) -> None:
    async with open_storage(root) as storage:
        container, _ = await _mounted(storage, [member("x", b"1")])
        (image,) = await storage.images.list()
        await storage.snapshots.unmount(container)
        await storage.images.remove(image.id)
    async with open_storage(root) as storage:
        merged = await storage.snapshots.mount(container)
        assert (merged / "x").read_bytes() == b"1"
        await storage.snapshots.remove(container)
        await storage.trash.emptied()
        assert _names(root / "layers") == []
        assert _names(root / "containers") == []


async def test_a_mount_outlives_the_process(root: Path) -> None:
    async with open_storage(root) as storage:
        container, merged = await _mounted(storage, [member("x", b"1")])
        (merged / "x").write_bytes(b"2")
    async with open_storage(root) as storage:
        assert (merged / "x").read_bytes() == b"2"
        assert await storage.snapshots.list() == {container}
        assert await storage.snapshots.mount(container) == merged
        await storage.snapshots.remove(container)


async def test_busy_root_is_detached(root: Path) -> None:
    async with open_storage(root) as storage:
        container, merged = await _mounted(storage, [member("x", b"1")])
        with (merged / "x").open("rb") as file:
            await storage.snapshots.remove(container)
            assert file.read() == b"1"
        assert await storage.snapshots.list() == set()


async def test_as_many_layers_as_an_image_may_have(root: Path) -> None:
    layers = [[member(f"f{number}", b"x"), member("same", b"%d" % number)] for number in range(MAX_LAYERS)]
    async with open_storage(root) as storage:
        container, merged = await _mounted(storage, *layers)
        assert (merged / "same").read_bytes() == b"%d" % (MAX_LAYERS - 1)
        assert len([name for name in _names(merged) if name.startswith("f")]) == MAX_LAYERS
        await storage.snapshots.remove(container)


async def test_one_layer_twice(root: Path) -> None:
    async with open_storage(root) as storage:
        same, other = [member("x", b"1")], [member("x", b"2")]
        container, merged = await _mounted(storage, same, other, same)
        assert (merged / "x").read_bytes() == b"1"
        await storage.snapshots.remove(container)


async def test_deep_trees_are_deleted(root: Path) -> None:
    async with open_storage(root) as storage:
        container, merged = await _mounted(storage, [member("x")])
        script = "import os\nfor _ in range(3000):\n os.mkdir('d'*20); os.chdir('d'*20)"
        assert (await run(["python3", "-c", script], cwd=str(merged), timeout=60)).returncode == 0
        assert await storage.snapshots.disk_usage(container) > 3000
        await storage.snapshots.remove(container)
        await storage.trash.emptied()
        assert _names(root / "trash") == []


async def test_disk_usage_follows_what_is_written(root: Path) -> None:
    async with open_storage(root) as storage:
        container, merged = await _mounted(storage, [member("x", bytes(1 << 20))])
        before = await storage.snapshots.disk_usage(container)
        (merged / "y").write_bytes(os.urandom(1 << 20))
        assert (1 << 20) <= await storage.snapshots.disk_usage(container) - before < (1 << 20) + (1 << 16)
        await storage.snapshots.remove(container)
        with pytest.raises(NotFound):
            await storage.snapshots.disk_usage(container)


async def test_broken_record_breaks_only_its_container(root: Path) -> None:
    async with open_storage(root) as storage:
        container, _ = await _mounted(storage, [member("x")])
        other = _id()
        await storage.snapshots.prepare(other, (await storage.images.list())[0].id)
    (root / "containers" / container / "snapshot.json").write_text("")
    async with open_storage(root) as storage:
        assert await storage.snapshots.list() == {container, other}
        with pytest.raises(FailedPrecondition) as refusal:
            await storage.snapshots.mount(container)
        assert refusal.value.reason == "BROKEN_SNAPSHOT"
        await storage.snapshots.mount(other)
        await storage.snapshots.remove(other)
        await storage.snapshots.remove(container)
        assert await storage.snapshots.list() == set()


async def test_another_image_for_the_same_container_is_refused(root: Path) -> None:
    async with open_storage(root) as storage:
        container = _id()
        await storage.snapshots.prepare(container, "")
        with pytest.raises(FailedPrecondition):
            await storage.snapshots.prepare(container, await _load(storage, [member("x")]))
        await storage.snapshots.remove(container)


async def test_unknown_image_leaves_nothing(root: Path) -> None:
    async with open_storage(root) as storage:
        with pytest.raises(NotFound):
            await storage.snapshots.prepare(_id(), "sha256:" + "0" * 64)
        assert _names(root / "containers") == []


@pytest.mark.parametrize("hostile", ["", "..", "../" + "a" * 61, "A" * 64, "a" * 63, "a" * 64 + "\n", "/" + "a" * 63])
async def test_hostile_ids_are_refused(root: Path, hostile: str) -> None:
    async with open_storage(root) as storage:
        calls = (
            storage.snapshots.mount,
            storage.snapshots.unmount,
            storage.snapshots.remove,
            storage.snapshots.disk_usage,
        )
        for call in calls:
            with pytest.raises(InvalidArgument):
                await call(hostile)
        with pytest.raises(InvalidArgument):
            await storage.snapshots.prepare(hostile, "")
