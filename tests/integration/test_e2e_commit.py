"""Images made of containers: what was added, changed and deleted, seen from inside a container of the new image."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as container_pb
from slipway.v1 import image_service_pb2 as pb

from tests.fixtures.slipway import Slipway

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="containers need root"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120),
]

CHANGES = """
set -e
echo new > /new; chmod 640 /new; chown 7:8 /new; ln /new /hard; ln -s /new /soft; mknod /device c 1 3; mkfifo /pipe
mkdir -p /data/deep; echo deep > /data/deep/file
rm /etc/passwd /old; rm -r /var/www 2>/dev/null || true
rm -r /etc/replaced; mkdir /etc/replaced; echo fresh > /etc/replaced/fresh
touch /.wh.bin
echo ready; exec sleep 300
"""
LOOK = """
stat -c '%a %u %g %h %F' /new; cat /hard; readlink /soft; stat -c '%F %t:%T' /device; stat -c %F /pipe
cat /data/deep/file; ls -A /etc/replaced; ls /etc/passwd /old 2>&1 | wc -l; ls -d /bin; echo $KIND $WHERE
"""


async def commit(engine: Slipway, container: str, **fields: object) -> pb.Image:
    request = pb.CommitContainerRequest(container=container, **fields)  # type: ignore[arg-type]  # any field
    return (await engine.images.CommitContainer(request, timeout=60)).image


async def run(engine: Slipway, image: str, *cmd: str) -> str:
    config = container_pb2.ContainerConfig(image=image, cmd=cmd)
    box = (await engine.containers.CreateContainer(container_pb.CreateContainerRequest(config=config))).id
    await engine.start(box)
    await engine.wait(box)
    written = (await engine.logs(box)).decode()
    await engine.remove(box)
    return written


async def ready(engine: Slipway, container: str) -> None:
    while b"ready" not in await engine.logs(container):
        await asyncio.sleep(0.02)


async def test_a_container_of_the_image_finds_what_was_done(engine: Slipway) -> None:
    first = await engine.run("sh", "-c", "mkdir /etc/replaced; echo old > /etc/replaced/old; echo old > /old")
    await engine.wait(first)
    base = await commit(engine, first, reference="base:1")
    box = (
        await engine.containers.CreateContainer(
            container_pb.CreateContainerRequest(
                config=container_pb2.ContainerConfig(
                    image="base:1", cmd=["sh", "-c", CHANGES], env=["KIND=box", "WHERE=here"]
                )
            )
        )
    ).id
    await engine.start(box)
    await ready(engine, box)
    image = await commit(
        engine, box, reference="made:1", author="me", config=pb.ImageConfig(cmd=["sh", "-c", LOOK], env=["WHERE=there"])
    )
    assert (await engine.inspect(box)).state.running
    assert list(image.layers)[:-1] == list(base.layers)
    seen = (await run(engine, "made:1", "sh", "-c", LOOK)).splitlines()
    assert seen == [
        "640 7 8 2 regular file",
        "new",
        "/new",
        "character special file 1:3",
        "fifo",
        "deep",
        "fresh",
        "2",
        "/bin",
        "box there",
    ]
    history = await engine.images.ListImageHistory(pb.ListImageHistoryRequest(image="made:1"))
    assert history.entries[0].created_by.startswith("sh -c")
    assert history.entries[0].tags == ["made:1"]
    await engine.kill(box)
    for container in (box, first):
        await engine.remove(container)
    for name in ("made:1", "base:1"):
        await engine.images.RemoveImage(pb.RemoveImageRequest(image=name))


async def test_nothing_runs_while_it_is_committed_and_all_goes_on_after(engine: Slipway) -> None:
    script = """i=0; while :; do
        i=$((i+1)); echo $i > /t; mv /t /a; echo $i > /t; mv /t /b; [ $i = 1 ] && echo ready
    done"""
    box = await engine.run("sh", "-c", script)
    await ready(engine, box)
    for number in range(3):
        await commit(engine, box, reference=f"still:{number}")
        first, second = (await run(engine, f"still:{number}", "cat", "/a", "/b")).split()
        assert int(first) - int(second) in (0, 1)
    state = (await engine.inspect(box)).state
    assert (state.running, state.paused) == (True, False)
    await engine.kill(box)
    await engine.remove(box)
    for number in range(3):
        await engine.images.RemoveImage(pb.RemoveImageRequest(image=f"still:{number}"))


async def test_a_commit_that_was_killed_leaves_nothing_and_the_container_goes_on(engine: Slipway) -> None:
    box = await engine.run("sh", "-c", "head -c 60m /dev/urandom > /big; echo ready; while :; do date +%N > /now; done")
    await ready(engine, box)
    pid = (await engine.inspect(box)).state.pid
    committing = await stopped_in_a_commit(engine, box, pid)
    await engine.executor.kill()
    await asyncio.wait({committing})
    assert committing.exception() is not None
    await engine.executor.start()
    await engine.node_back()
    assert not frozen(pid)
    assert (await engine.inspect(box)).state.running
    images = (await engine.images.ListImages(pb.ListImagesRequest())).images
    names = [name for image in images for name in image.repo_tags]
    assert names == ["busybox:latest"]
    await engine.kill(box)
    await engine.remove(box)


async def stopped_in_a_commit(engine: Slipway, box: str, pid: int) -> asyncio.Task[pb.Image]:
    """The executor stands still, and the container is frozen by it: this test may have been too slow to see that, and
    then the commit is done once more."""
    while True:
        committing = asyncio.create_task(commit(engine, box, reference="killed:1"))
        while not committing.done():
            if frozen(pid):
                os.kill(engine.executor.pid, signal.SIGSTOP)
                if frozen(pid):
                    return committing
                os.kill(engine.executor.pid, signal.SIGCONT)
            await asyncio.sleep(0.001)
        await committing
        await engine.images.RemoveImage(pb.RemoveImageRequest(image="killed:1"), timeout=30)


def frozen(pid: int) -> bool:
    """By its cgroup, v1 or v2."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "freezer":
            return Path(f"/sys/fs/cgroup/freezer{path}/freezer.state").read_text().strip() != "THAWED"
        if not controllers and (events := Path(f"/sys/fs/cgroup{path}/cgroup.events")).exists():
            return "frozen 1" in events.read_text()
    return False
