"""Every kind of mount as the container sees it: its own mountinfo, what it can write, and what then is on the node."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from slipway.v1 import mount_pb2
from slipway.v1 import volume_service_pb2 as volume_pb

from tests.fixtures.api import refused
from tests.fixtures.netns import command
from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

Mount = mount_pb2.Mount
Bind = mount_pb2.BindOptions
Volume = mount_pb2.VolumeOptions


@dataclass(frozen=True)
class Seen:
    """A line of /proc/self/mountinfo, proc(5)."""

    root: str
    options: frozenset[str]
    optional: tuple[str, ...]
    kind: str
    super_options: frozenset[str]


def mounts_of(text: str) -> Mapping[str, Seen]:
    """By mount point; of several at one point the last, which is the one that is seen."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if "-" not in fields or len(fields) < 9:
            continue
        dash = fields.index("-")
        found[fields[4]] = Seen(
            root=fields[3],
            options=frozenset(fields[5].split(",")),
            optional=tuple(fields[6:dash]),
            kind=fields[dash + 1],
            super_options=frozenset(fields[dash + 3].split(",")),
        )
    return found


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory of the node that is a shared mount, with another mount below it."""
    place = tmp_path / "shared"
    (place / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    (place / "below").mkdir()
    subprocess.run(["mount", "--make-shared", place], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place / "below"], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", place], check=True)


async def volume(engine: Slipway, name: str) -> Path:
    answer = await engine.volumes.InspectVolume(volume_pb.InspectVolumeRequest(volume=name), timeout=60)
    return Path(answer.volume.mountpoint)


async def test_binds_volumes_tmpfs_and_images_side_by_side(engine: Slipway, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file\n")
    script = """
        cat /proc/self/mountinfo
        echo written > /bind/new; echo written > /named/new; echo written > /anonymous/new; echo written > /tmpfs/new
        for place in /ro /named-ro /image /sub /tmpfs-ro; do touch $place/x 2>/dev/null && echo "writable $place"; done
        touch /x 2>/dev/null && echo "writable /"
        cat /etc/hosts; cat /file; ls /image/bin/sh /sub/sh; stat -c 'mode %a %U' /tmpfs /map; pwd
    """
    container = await engine.run(
        *("sh", "-c", script),
        config={"volumes": ["/config"], "working_dir": "/named/deep/er"},
        readonly_rootfs=True,
        binds=[
            f"{tmp_path}:/bind",
            f"{tmp_path}:/ro:ro",
            f"{tmp_path}/file:/file",
            f"{tmp_path}/file:/etc/hosts:ro",
            "kinds:/named",
            "kinds:/named-ro:ro,nocopy",
            "/anonymous",
        ],
        mounts=[
            Mount(type="tmpfs", target="/tmpfs", tmpfs_options=mount_pb2.TmpfsOptions(size_bytes=1 << 20, mode=0o750)),
            Mount(type="tmpfs", target="/tmpfs-ro", read_only=True),
            Mount(type="image", source="busybox", target="/image"),
            Mount(type="image", source="busybox", target="/sub", image_options=mount_pb2.ImageOptions(subpath="bin")),
        ],
        tmpfs={"/map": "size=64k,exec,uid=65534", "/dev/shm": "size=32k"},
    )
    assert (await engine.wait(container)).exit_code == 0
    said = (await engine.logs(container)).decode()
    seen = mounts_of(said)

    assert "writable" not in said
    assert "a file\n" in said
    assert "localhost" not in said  # the file of the user's replaces ours
    assert "/image/bin/sh\n/sub/sh\n" in said
    assert "mode 750 root\n" in said
    assert "mode 1777 nobody\n" in said
    assert said.endswith("/named/deep/er\n")
    assert (tmp_path / "new").read_text() == "written\n"
    data = await volume(engine, "kinds")
    assert (data / "new").read_text() == "written\n"
    assert (data / "deep" / "er").is_dir()
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
    assert stat.S_IMODE(data.parent.parent.stat().st_mode) == 0o700

    assert "rw" in seen["/bind"].options
    for point in ("/ro", "/named-ro", "/image", "/sub", "/tmpfs-ro", "/etc/hosts", "/"):
        assert "ro" in seen[point].options, point
    assert {"nosuid", "nodev", "noexec", "rw"} <= seen["/tmpfs"].options
    assert "size=1024k" in seen["/tmpfs"].super_options
    assert "noexec" not in seen["/map"].options
    assert {"nosuid", "nodev"} <= seen["/map"].options
    assert "size=64k" in seen["/map"].super_options
    assert "size=32k" in seen["/dev/shm"].super_options
    assert seen["/anonymous"].root.endswith("/_data")
    assert seen["/config"].root.endswith("/_data")
    assert all(not mount.optional for mount in seen.values())  # nothing is shared with the node

    shown = {point.destination: point for point in (await engine.inspect(container)).mounts}
    assert [shown["/bind"].source, shown["/named"].name, shown["/ro"].mode] == [str(tmp_path), "kinds", "ro"]
    assert not shown["/ro"].rw
    assert [point.destination for point in (await engine.inspect(container)).mounts] == sorted(shown)
    await engine.remove(container, volumes=True)
    left = (await engine.volumes.ListVolumes(volume_pb.ListVolumesRequest(), timeout=60)).volumes
    assert [each.name for each in left] == ["kinds"]  # the anonymous ones are gone


async def test_a_volume_is_filled_once_with_owners_modes_and_links(engine: Slipway) -> None:
    listing = ["sh", "-c", "stat -c '%n %a %U:%G %F' /var/spool/mail /home; ls -A /home"]
    said = await engine.output(*listing, binds=["mail:/var/spool/mail", "home:/home"])
    assert "/home 755 nobody:nogroup directory" in said
    mail = await volume(engine, "mail")
    assert (mail.stat().st_uid, mail.stat().st_gid) == (8, 8)

    everything = await engine.output("sh", "-c", "ls /busybox; ls -i /bin/busybox /bin/sh", binds=["bin:/bin"])
    inodes = {line.split()[0] for line in everything.splitlines() if "/bin/" in line}
    assert len(inodes) == 1  # hard links stay links
    data = await volume(engine, "bin")
    (data / "vi").unlink()
    await engine.output("true", binds=["bin:/bin"])
    assert not (data / "vi").exists()  # it was not empty
    assert (await engine.output("ls", "/var/spool", binds=["none:/var/spool:nocopy"])) == ""
    assert list((await volume(engine, "none")).iterdir()) == []
    for name in ("mail", "home", "bin", "none"):
        await engine.volumes.RemoveVolume(volume_pb.RemoveVolumeRequest(volume=name), timeout=60)
    assert not data.exists()


async def test_what_another_container_mounts_is_taken_over(engine: Slipway, tmp_path: Path) -> None:
    first = await engine.create("true", name="first", binds=[f"{tmp_path}:/bind", "/kept"])
    script = "cat /proc/self/mountinfo; echo from second > /kept/file; touch /bind/x 2>&- || echo no; cat /kept/file"
    said = await engine.output("sh", "-c", script, volumes_from=["first"], binds=[f"{tmp_path}:/bind:ro"])
    assert "ro" in mounts_of(said)["/bind"].options
    assert said.endswith("no\nfrom second\n")
    # The first one's volume is still its own after the second was removed.
    assert (await engine.output("cat", "/kept/file", volumes_from=["first:ro"])) == "from second\n"
    said = await engine.output(
        "sh", "-c", "touch /kept/x || echo refused", volumes_from=["first:ro"], auto_remove=False
    )
    assert "refused" in said
    await engine.remove(first, volumes=True)


async def test_a_subpath_of_a_volume(engine: Slipway) -> None:
    await engine.output("sh", "-c", "mkdir -p /v/a/b; echo inside > /v/a/b/file; ln -s / /v/out", binds=["tree:/v"])
    part = Mount(type="volume", source="tree", target="/part", volume_options=Volume(subpath="a/b"))
    assert await engine.output("cat", "/part/file", mounts=[part]) == "inside\n"
    # A link leads to where it leads from inside: the root of the volume, not of the node.
    out = Mount(type="volume", source="tree", target="/part", volume_options=Volume(subpath="out"))
    assert (await engine.output("ls", "/part", mounts=[out])).split() == ["a", "out"]
    gone = Mount(type="volume", source="tree", target="/part", volume_options=Volume(subpath="missing"))
    container = await engine.create("true", mounts=[gone])
    failed = await refused(engine.start(container))
    assert "host_config.mounts[0]" in failed.message
    assert "'missing' does not exist in the volume 'tree'" in failed.message
    await engine.remove(container)


async def test_a_bind_needs_its_source_or_has_it_made(engine: Slipway, tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "deep"
    failed = await refused(engine.create("true", binds=["/tmp:/ok", f"{missing}:/data"]))
    assert failed.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "does not exist on the node" in failed.violations["host_config.binds[1]"]
    failed = await refused(engine.create("true", mounts=[Mount(type="bind", source=str(missing), target="/data")]))
    assert list(failed.violations) == ["host_config.mounts[0].source"]
    assert not missing.exists()

    wanted = Mount(type="bind", source=str(missing), target="/data", bind_options=Bind(create_mountpoint=True))
    await engine.output("touch", "/data/x", mounts=[wanted])
    assert (missing / "x").exists()
    assert stat.S_IMODE(missing.stat().st_mode) == 0o755

    container = await engine.create("true", binds=[f"{missing}:/data"])
    missing.rename(tmp_path / "moved")
    failed = await refused(engine.start(container))
    assert "host_config.binds[0]" in failed.message
    assert "does not exist on the node" in (await engine.inspect(container)).state.error
    (tmp_path / "moved").rename(missing)
    await engine.start(container)
    await engine.wait(container)
    await engine.remove(container)

    failed = await refused(engine.create("true", binds=["/proc/self/cwd:/data"]))
    assert "a process's files" in failed.violations["host_config.binds[0]"]


async def test_mounts_propagate_as_asked(engine: Slipway, shared: Path) -> None:
    def bind(target: str, propagation: str) -> Mount:
        return Mount(type="bind", source=str(shared), target=target, bind_options=Bind(propagation=propagation))

    options: dict[str, Any] = {
        "mounts": [bind("/shared", "rshared"), bind("/slave", "rslave"), bind("/private", "rprivate")]
    }
    container = await engine.run(
        "sh", "-c", "cat /proc/self/mountinfo; cat /shared/go; ls /shared/late /slave/late /private/late", **options
    )
    await engine.wait(container)
    seen = mounts_of((await engine.logs(container)).decode())
    assert any(each.startswith("shared:") for each in seen["/shared"].optional)
    assert any(each.startswith("master:") for each in seen["/slave"].optional)
    assert not any(each.startswith("shared:") for each in seen["/slave"].optional)
    assert seen["/private"].optional == ()
    assert "/private/below" in seen
    await engine.remove(container)

    os.mkfifo(shared / "go")
    (shared / "late").mkdir()
    container = await engine.run("sh", "-c", "cat /shared/go; ls /shared/late /slave/late /private/late", **options)
    command("mount", "-t", "tmpfs", "tmpfs", str(shared / "late"))
    (shared / "late" / "seen").touch()
    (shared / "go").write_text("now\n")
    await engine.wait(container)
    assert (await engine.logs(container)).decode().split() == [
        *("now", "/private/late:"),
        *("/shared/late:", "seen"),
        *("/slave/late:", "seen"),
    ]
    await engine.remove(container)


async def test_a_container_can_mount_for_the_node_when_it_is_shared(engine: Slipway, shared: Path) -> None:
    (shared / "made").mkdir()
    mount = Mount(type="bind", source=str(shared), target="/shared", bind_options=Bind(propagation="rshared"))
    container = await engine.run("sleep", "300", mounts=[mount])
    inside = f"/proc/{(await engine.inspect(container)).state.pid}/ns/mnt"
    command("nsenter", f"--mount={inside}", "mount", "-t", "tmpfs", "made", "/shared/made")
    assert str(shared / "made") in [line.split()[4] for line in mountinfo()]
    await engine.remove(container)


async def test_propagation_needs_a_shared_mount(engine: Slipway, shared: Path) -> None:
    command("mount", "--make-private", str(shared))
    for word in ("rshared", "slave"):
        container = await engine.create("true", binds=[f"{shared}:/data:{word}"])
        failed = await refused(engine.start(container))
        assert f"'{word}' cannot be had: '{shared}' is mounted on '{shared}', which is not" in failed.message
        assert "host_config.binds[0]" in failed.message
        await engine.remove(container)


async def test_what_is_mounted_below_is_read_only_too_or_left_out(engine: Slipway, shared: Path) -> None:
    def bind(target: str, **options: Any) -> Mount:
        return Mount(
            type="bind",
            source=str(shared),
            target=target,
            read_only=True,
            bind_options=Bind(**options),
        )

    script = """
        cat /proc/self/mountinfo
        for place in /all /force /top /flat; do touch $place/x; touch $place/below/$(basename $place); done
        ls /flat/below
    """
    said = await engine.output(
        *("sh", "-c", script),
        mounts=[
            bind("/all"),
            bind("/force", read_only_force_recursive=True),
            bind("/top", read_only_non_recursive=True),
            bind("/flat", non_recursive=True),
        ],
    )
    seen = mounts_of(said)
    assert "ro" in seen["/all/below"].options
    assert "ro" in seen["/force/below"].options
    assert "rw" in seen["/top/below"].options
    assert "/flat/below" not in seen
    assert all("ro" in seen[point].options for point in ("/all", "/force", "/top", "/flat"))
    assert [path.name for path in (shared / "below").iterdir()] == ["top"]
    assert not (shared / "x").exists()
    (line,) = [line for line in mountinfo() if line.split()[4] == str(shared / "below")]
    assert line.split()[5].startswith("rw")  # the node's own mount is as it was


async def test_a_local_volume_of_a_file_system_is_mounted_while_it_is_used(engine: Slipway, shared: Path) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=64k"}
    driver = mount_pb2.VolumeDriver(options=options)
    for _ in range(2):
        request = volume_pb.CreateVolumeRequest(name="memory", driver=driver, labels={"a": "b"})
        made = (await engine.volumes.CreateVolume(request, timeout=60)).volume
    assert made.driver.options == options
    first = await engine.run("sh", "-c", "echo shared > /v/file; sleep 300", binds=["memory:/v"])
    said = await engine.output(
        "sh", "-c", "until cat /v/file 2>/dev/null; do :; done; cat /proc/self/mountinfo", binds=["memory:/v"]
    )
    assert said.startswith("shared\n")
    assert "size=64k" in mounts_of(said)["/v"].super_options
    assert made.mountpoint in executor_mounts(engine)
    failed = await refused(engine.volumes.RemoveVolume(volume_pb.RemoveVolumeRequest(volume="memory"), timeout=60))
    assert failed.code is grpc.StatusCode.FAILED_PRECONDITION
    await engine.remove(first)
    assert made.mountpoint not in executor_mounts(engine)

    bound = mount_pb2.VolumeDriver(options={"type": "none", "o": "rbind", "device": str(shared)})
    mount = Mount(type="volume", source="bound", target="/v", volume_options=Volume(driver_config=bound))
    assert await engine.output("sh", "-c", "echo x > /v/x; ls /v", mounts=[mount]) == "below\nx\n"
    assert (shared / "x").exists()
    for name in ("memory", "bound"):
        await engine.volumes.RemoveVolume(volume_pb.RemoveVolumeRequest(volume=name), timeout=60)
    assert (shared / "x").exists()  # what was mounted is not the volume's to delete
    assert str(shared / "below") in [line.split()[4] for line in mountinfo()]  # nor to unmount


async def test_places_where_nothing_can_be_mounted(engine: Slipway, tmp_path: Path) -> None:
    failed = await refused(engine.create("true", binds=["file:/etc/passwd"]))
    assert "file of the image" in failed.violations["host_config.binds[0]"]
    assert "file" not in [
        each.name for each in (await engine.volumes.ListVolumes(volume_pb.ListVolumesRequest())).volumes
    ]
    # A target through a link of a volume stays in the container.
    await engine.output("ln", "-s", "/etc", "/v/link", binds=["links:/v"])
    await engine.output("sh", "-c", "echo x > /v/link/inside/file", binds=["links:/v", f"{tmp_path}:/v/link/inside"])
    assert (tmp_path / "file").exists()
    assert not Path("/etc/inside").exists()
    await engine.volumes.RemoveVolume(volume_pb.RemoveVolumeRequest(volume="links"), timeout=60)


def mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def executor_mounts(engine: Slipway) -> str:
    return Path(f"/proc/{engine.executor.pid}/mountinfo").read_text()
