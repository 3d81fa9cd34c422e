"""Files of containers through both services: copied in and out, exported, listed, and none outside is touched."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from slipway.v1 import container_service_pb2 as pb

from tests.fixtures.api import refused
from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "the host's own"


def tar(*members: tarfile.TarInfo | tuple[str, bytes], compression: str = "") -> bytes:
    """Members are headers, or a name and what the file of it holds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode, info.uid, info.gid, info.mtime = len(member[1]), 0o640, 1000, 1001, 1_500_000_000
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, 0o755
    for field, value in fields.items():
        setattr(info, field, value)
    return info


async def put(engine: Slipway, container: str, path: str, archive: bytes, **target: bool) -> None:
    async def requests() -> AsyncIterator[pb.CopyToContainerRequest]:
        yield pb.CopyToContainerRequest(target=pb.CopyTarget(container=container, path=path, **target))
        for at in range(0, len(archive), 1 << 20):
            yield pb.CopyToContainerRequest(chunk=archive[at : at + (1 << 20)])

    await engine.containers.CopyToContainer(requests(), timeout=60)


async def get(engine: Slipway, container: str, path: str) -> tuple[pb.PathStat, tarfile.TarFile]:
    call = engine.containers.CopyFromContainer(pb.CopyFromContainerRequest(container=container, path=path), timeout=60)
    answers = [answer async for answer in call]
    assert answers[0].HasField("stat")
    content = b"".join(answer.chunk for answer in answers[1:])
    return answers[0].stat, tarfile.open(fileobj=io.BytesIO(content))


async def text(engine: Slipway, container: str, path: str) -> bytes:
    _, archive = await get(engine, container, path)
    file = archive.extractfile(archive.getmembers()[0])
    assert file is not None
    return file.read()


async def changes(engine: Slipway, container: str) -> list[str]:
    answer = await engine.containers.ListChanges(pb.ListChangesRequest(container=container), timeout=60)
    letters = {pb.CHANGE_KIND_MODIFIED: "C", pb.CHANGE_KIND_ADDED: "A", pb.CHANGE_KIND_DELETED: "D"}
    return [f"{letters[change.kind]} {change.path}" for change in answer.changes]


def mounts_of(engine: Slipway) -> list[str]:
    """What is mounted in the executor's mount namespace."""
    lines = Path(f"/proc/{engine.executor.pid}/mountinfo").read_text().splitlines()
    return [line for line in lines if "/merged" in line and f"slipway-{engine.instance}" in line]


async def test_in_and_out_of_a_created_a_running_and_an_exited_container(engine: Slipway) -> None:
    container = await engine.create("sh", "-c", "cat /data/in.txt; echo out > /data/out.txt; mknod /p p; sleep 300")
    await put(engine, container, "/", tar(special("data", tarfile.DIRTYPE), ("data/in.txt", b"hello\n")))
    assert mounts_of(engine) == []
    await engine.start(container)
    while not await engine.logs(container):
        await asyncio.sleep(0.02)
    assert await engine.logs(container) == b"hello\n"
    await put(engine, container, "/data", tar(("kept", b"1"), compression="gz"), copy_uid_gid=True)
    while True:
        try:
            described, archive = await get(engine, container, "/p")
            break
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.02)
    assert stat.S_ISFIFO(described.mode)
    assert archive.getmembers()[0].isfifo()
    await engine.kill(container)
    for name, content in (("in.txt", b"hello\n"), ("out.txt", b"out\n"), ("kept", b"1")):
        assert await text(engine, container, f"/data/{name}") == content
    described, archive = await get(engine, container, "/data")
    assert (described.name, described.link_target) == ("data", "")
    assert stat.S_ISDIR(described.mode)
    members = {member.name: member for member in archive.getmembers()}
    assert set(members) == {"data", "data/in.txt", "data/out.txt", "data/kept"}
    ours, given = members["data/in.txt"], members["data/kept"]
    assert (ours.uid, ours.gid, ours.mode, int(ours.mtime)) == (0, 0, 0o640, 1_500_000_000)
    assert (given.uid, given.gid) == (1000, 1001)
    # What a run leaves goes after its end was told; a copy that came in between leaves the root as it was.
    async with asyncio.timeout(60):
        while mounts_of(engine):
            await asyncio.sleep(0.01)
    await engine.remove(container)


async def test_every_kind_of_file_comes_back_as_it_went_in(engine: Slipway) -> None:
    container = await engine.create("true")
    archive = tar(
        special("tree", tarfile.DIRTYPE, mode=0o1777, mtime=1_400_000_000),
        ("tree/" + "long" * 60, b"x" * 3_000_000),
        ("tree/file", b"content"),
        special("tree/hard", tarfile.LNKTYPE, linkname="tree/file"),
        special("tree/soft", tarfile.SYMTYPE, linkname="/etc/passwd"),
        special("tree/fifo", tarfile.FIFOTYPE),
        special("tree/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        ("deep/er/without/directories", b""),
    )
    await put(engine, container, "/tmp", archive)
    _, back = await get(engine, container, "/tmp/.")
    members = {member.name.removeprefix("./"): member for member in back.getmembers()}
    assert (members["tree"].mode, int(members["tree"].mtime)) == (0o1777, 1_400_000_000)
    assert members["tree/" + "long" * 60].size == 3_000_000
    links = [members["tree/file"], members["tree/hard"]]
    assert sorted(link.type for link in links) == [tarfile.REGTYPE, tarfile.LNKTYPE]
    assert members["tree/soft"].linkname == "/etc/passwd"
    assert members["tree/fifo"].isfifo()
    null = members["tree/null"]
    assert (null.type, null.devmajor, null.devminor) == (tarfile.CHRTYPE, 1, 3)
    assert members["deep/er"].mode == 0o755
    described, _ = await get(engine, container, "/tmp/tree/soft")
    assert described.link_target == "/etc/passwd"
    await engine.remove(container)


async def test_what_may_not_be_is_refused_by_name(engine: Slipway) -> None:
    container = await engine.create("true")
    await put(engine, container, "/tmp", tar(special("d", tarfile.DIRTYPE), ("f", b"old")))
    plain = tar(("x", b""))
    refusals = {
        "NOT_FOUND": put(engine, container, "/nowhere", plain),
        "INVALID_ARGUMENT": put(engine, container, "/tmp/f", plain),
        "FAILED_PRECONDITION": put(engine, container, "/tmp", tar(("d", b"")), no_overwrite_dir_non_dir=True),
    }
    for code, call in refusals.items():
        assert (await refused(call)).code.name == code
    assert (await refused(put(engine, container, "tmp", plain))).violations.keys() == {"target.path"}
    assert (await refused(put(engine, container, "/tmp", b"no tar at all" * 100))).reason == "CORRUPT_ARCHIVE"
    assert (await refused(put(engine, container, "/tmp", tar(("../up", b""))))).reason == "CORRUPT_ARCHIVE"
    assert (await refused(get(engine, container, "/tmp/none"))).code is grpc.StatusCode.NOT_FOUND
    assert (await refused(get(engine, container, "/tmp/f/"))).reason == "NOT_A_DIRECTORY"
    # Half an archive changes nothing, not even the half that came.
    whole = tar(("f", b"new"), ("g", b"y" * 4_000_000))
    for half in (whole[:1024], whole[:2_000_000]):
        assert (await refused(put(engine, container, "/tmp", half))).reason == "CORRUPT_ARCHIVE"
    assert await text(engine, container, "/tmp/f") == b"old"
    names = [member.name for member in (await get(engine, container, "/tmp"))[1].getmembers()]
    assert not [name for name in names if ".slipway" in name or name.endswith("/g")]
    await put(engine, container, "/tmp", tar(("d", b"now a file")))
    assert await text(engine, container, "/tmp/d") == b"now a file"
    await engine.remove(container)
    assert (await refused(get(engine, container, "/tmp"))).code is grpc.StatusCode.NOT_FOUND


async def test_changes_are_those_docker_diff_shows(engine: Slipway) -> None:
    script = (
        "echo x > /etc/new; echo y >> /etc/passwd; rm /etc/group; rm -r /var/www; mkdir /var/www; echo z > /var/www/a;"
        "chmod 700 /home; ln -s /x /tmp/link"
    )
    container = await engine.run("sh", "-c", script)
    assert (await engine.wait(container)).exit_code == 0
    found = await changes(engine, container)
    assert found == [
        "C /etc",
        "D /etc/group",
        "A /etc/new",
        "C /etc/passwd",
        "C /home",
        "C /tmp",
        "A /tmp/link",
        "C /var",
        "C /var/www",
        "A /var/www/a",
    ]
    untouched = await engine.create("true")
    assert await changes(engine, untouched) == []
    await engine.start(untouched)
    await engine.wait(untouched)
    assert await changes(engine, untouched) == []
    await engine.remove(container)
    await engine.remove(untouched)


async def test_an_export_is_the_root_without_its_mounts(engine: Slipway) -> None:
    container = await engine.run("sh", "-c", "echo mine > /mine; mkfifo /f; sleep 300")
    while "A /f" not in await changes(engine, container):
        await asyncio.sleep(0.02)
    call = engine.containers.ExportContainer(pb.ExportContainerRequest(container=container), timeout=60)
    content = b"".join([answer.chunk async for answer in call])
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = {member.name: member for member in archive.getmembers()}
    assert "bin/busybox" in members or "bin/sh" in members
    assert members["mine"].size == 5
    assert members["etc/hosts"].size == 0  # the mounted one is not the root's
    assert not [name for name in members if name.startswith(("proc/", "sys/", "dev/null"))]
    await engine.remove(container)


async def test_links_that_are_swapped_all_the_time_lead_nowhere_outside(engine: Slipway) -> None:
    """CVE-2018-15664: between looking and using, the container changes what a name means."""
    bait = Path("/tmp") / f"slipway-bait-{engine.instance}"
    bait.mkdir()
    (bait / "secret").write_text(SECRET)
    script = (
        f"mkdir -p /real{bait} /real2; echo inside > /real{bait}/secret; echo inside > /real/secret;"
        f"ln -s {bait} /link; mv /real /dir; echo ready;"
        f"while true; do mv /dir /away; ln -s {bait} /dir; rm /dir; mv /away /dir; done"
    )
    container = await engine.run("sh", "-c", script)
    try:
        while b"ready" not in await engine.logs(container):
            await asyncio.sleep(0.02)
        end = time.monotonic() + 3.0
        seen: set[bytes] = set()
        while time.monotonic() < end or not seen:
            try:
                seen.add(await text(engine, container, "/dir/secret"))
                await put(engine, container, "/dir", tar(("planted", b"x"), ("sub/planted", b"x")))
            except grpc.aio.AioRpcError as error:
                assert error.code() in (
                    grpc.StatusCode.NOT_FOUND,
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.FAILED_PRECONDITION,
                    grpc.StatusCode.ABORTED,
                ), error
        assert seen == {b"inside\n"}
        assert [entry.name for entry in bait.iterdir()] == ["secret"]
        assert (bait / "secret").read_text() == SECRET
        # An absolute link of the container's means a place in the container.
        await engine.kill(container)
        assert (await refused(get(engine, container, "/link/none"))).code is grpc.StatusCode.NOT_FOUND
        for name in (f"{bait}/secret", "/../../../../.." + f"{bait}/secret"):
            assert (await refused(get(engine, container, name))).code is grpc.StatusCode.NOT_FOUND
    finally:
        await engine.remove(container)
        (bait / "secret").unlink()
        bait.rmdir()


async def test_links_in_an_archive_lead_nowhere_outside(engine: Slipway) -> None:
    container = await engine.create("true")
    outside = special("out", tarfile.SYMTYPE, linkname="/tmp/slipway-none")
    refusal = await refused(put(engine, container, "/home", tar(outside, ("out/x", b""))))
    assert refusal.code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
    hard = special("hard", tarfile.LNKTYPE, linkname="../etc/passwd")
    assert (await refused(put(engine, container, "/home", tar(hard)))).reason == "CORRUPT_ARCHIVE"
    assert not Path("/tmp/slipway-none").exists()
    # Unpacked into the root, a link means what it means to the container's processes.
    inside = special("short", tarfile.SYMTYPE, linkname="/tmp")
    await put(engine, container, "/", tar(inside, ("short/here", b"1")))
    assert await text(engine, container, "/tmp/here") == b"1"
    await engine.remove(container)


async def test_slow_and_vanished_clients_hold_up_nobody(engine: Slipway) -> None:
    container = await engine.create("sleep", "300")
    await put(engine, container, "/tmp", tar(("large", os.urandom(1 << 20) * 40)))
    request = pb.CopyFromContainerRequest(container=container, path="/tmp/large")
    slow = engine.containers.CopyFromContainer(request, timeout=60)
    assert await slow.read()
    upload = engine.containers.CopyToContainer(timeout=60)
    await upload.write(pb.CopyToContainerRequest(target=pb.CopyTarget(container=container, path="/tmp")))
    await upload.write(pb.CopyToContainerRequest(chunk=tar(("half", b"y" * 100_000))[:50_000]))
    # Its start and end go on beside them, on one and the same mount.
    await engine.start(container)
    assert len(mounts_of(engine)) == 1
    await engine.kill(container)
    slow.cancel()
    upload.cancel()
    async with asyncio.timeout(60):
        while mounts_of(engine):
            await asyncio.sleep(0.02)
    names = [member.name for member in (await get(engine, container, "/tmp"))[1].getmembers()]
    assert names == ["tmp", "tmp/large"]
    await engine.remove(container)


async def test_a_read_only_root_takes_nothing(engine: Slipway) -> None:
    container = await engine.create("sleep", "300", readonly_rootfs=True)
    assert (await refused(put(engine, container, "/tmp", tar(("x", b""))))).reason == "READ_ONLY"
    await engine.start(container)
    assert (await refused(put(engine, container, "/tmp", tar(("x", b""))))).reason == "READ_ONLY"
    assert (await refused(put(engine, container, "/proc", tar(("x", b""))))).reason == "NOT_FILES"
    await engine.remove(container)


async def test_a_volume_is_copied_into_while_it_is_mounted(engine: Slipway) -> None:
    container = await engine.create("sleep", "300", binds=[f"copies-{engine.instance}:/data"])
    for call in (put(engine, container, "/data", tar(("x", b"1"))), get(engine, container, "/data/../data/x")):
        assert (await refused(call)).reason == "MOUNTED_WHILE_RUNNING"
    await engine.start(container)
    await put(engine, container, "/data", tar(("x", b"1")))
    assert await text(engine, container, "/data/x") == b"1"
    assert not [change for change in await changes(engine, container) if "/data" in change]
    await engine.remove(container)


async def test_prune_removes_what_does_not_run_and_says_how_much_it_held(engine: Slipway) -> None:
    config = {"labels": {"batch": "1"}}
    ended = await engine.run("sh", "-c", "head -c 2000000 /dev/zero > /big", config=config)
    await engine.wait(ended)
    other = await engine.create("true")
    running = await engine.run("sleep", "300", config=config)
    request = pb.PruneContainersRequest(label=["batch=1", "!keep"])
    pruned = await engine.containers.PruneContainers(request, timeout=60)
    assert list(pruned.containers) == [ended]
    assert 2_000_000 <= pruned.space_reclaimed < 3_000_000
    pruned = await engine.containers.PruneContainers(pb.PruneContainersRequest(), timeout=60)
    assert list(pruned.containers) == [other]
    await engine.remove(running)
