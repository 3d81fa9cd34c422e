"""Containers whose users are others on the node: from inside, from the node, and beside one with the node's own."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from slipway.v1 import container_pb2, health_pb2, volume_service_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import exec_service_pb2 as exec_pb
from slipway.v1 import image_service_pb2 as image_pb

from tests.fixtures.slipway import Slipway, installed

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST = 231072
NOBODY = 65534

# What root of the container is, and is not.
_INSIDE = """
cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '; id -u
echo up > /dev/stdout; ping -c 1 -W 2 127.0.0.1 >/dev/null && echo ping
httpd -p 80 -h /tmp && echo port; echo x >> /etc/hosts && echo hosts; : > /etc/made && echo made
mkdir -p /new/dir && chown 1000:1001 /new/dir && rm /bin/mv && echo layered
touch /dev/shm/x && : > /dev/null && echo dev; stat -c %u /tmp /bin /etc/hosts | tr '\\n' ' '
echo 1 2>&- > /proc/sys/kernel/printk || echo sys; [ -z "$(cat /proc/keys)" ] && echo masked
grep -c ' /sys sysfs ro' /proc/mounts; chmod 600 /dev/null 2>&- || echo device
stat -c %u /proc/1
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slipway]:
    flags = ["--userns-remap", f"{FIRST}:65536"]
    async with installed(tmp_path_factory.mktemp("services"), executor=flags) as engine:
        yield engine


async def execute(engine: Slipway, container: str, *cmd: str, **config: Any) -> str:
    request = exec_pb.CreateExecRequest(
        container=container,
        config=exec_pb.ExecConfig(cmd=cmd, attach_stdout=True, attach_stderr=True, **config),
    )
    exec_id = (await engine.execs.CreateExec(request, timeout=30)).id
    call = engine.execs.StartExec(timeout=30)
    await call.write(exec_pb.StartExecRequest(start=exec_pb.ExecTarget(exec=exec_id)))
    return b"".join([answer.output.data async for answer in call]).decode()


async def pid(engine: Slipway, container: str) -> int:
    return (await engine.inspect(container)).state.pid


async def ready(engine: Slipway, container: str) -> None:
    while b"ready" not in await engine.logs(container):
        await asyncio.sleep(0.02)


async def get(engine: Slipway, container: str, path: str) -> list[tarfile.TarInfo]:
    call = engine.containers.CopyFromContainer(pb.CopyFromContainerRequest(container=container, path=path), timeout=30)
    content = b"".join([answer.chunk async for answer in call])
    return members(content)


async def create_when_known(engine: Slipway, *cmd: str) -> str:
    """The API learns of another setting when it is back in touch with the executor; until then it is told to ask."""
    while True:
        try:
            return await engine.create(*cmd)
        except grpc.aio.AioRpcError as error:
            assert "userns_remap was changed meanwhile; repeat" in (error.details() or "")


def members(content: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return archive.getmembers()


async def put(engine: Slipway, container: str, path: str, *, uid: int, **target: bool) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("copied")
        info.uid, info.gid, info.size = uid, 1001, 2
        archive.addfile(info, io.BytesIO(b"hi"))

    async def requests() -> AsyncIterator[pb.CopyToContainerRequest]:
        yield pb.CopyToContainerRequest(target=pb.CopyTarget(container=container, path=path, **target))
        yield pb.CopyToContainerRequest(chunk=buffer.getvalue())

    await engine.containers.CopyToContainer(requests(), timeout=30)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
async def test_root_inside_is_nobody_outside(engine: Slipway, runtime: str) -> None:
    before = Path("/dev/null").stat()
    said = await engine.output("sh", "-c", _INSIDE, runtime=runtime, config={"working_dir": "/made/here"})
    line = f" 0 {FIRST} 65536"
    assert said.splitlines() == [
        *(line, line, "0", "up", "ping", "port", "hosts", "made", "layered", "dev"),
        *("0 0 0 sys", "masked", "1", "device", "0"),
    ]
    after = Path("/dev/null").stat()
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)


async def test_files_of_the_root_keep_their_ids_on_disk_and_are_copied_as_the_container_has_them(
    engine: Slipway, tmp_path: Path
) -> None:
    (tmp_path / "of-root").touch(mode=0o600)
    script = "touch /file /bind/made; chown 7:8 /file; cat /bind/of-root || echo denied; echo ready; sleep 300"
    tmp_path.chmod(0o777)
    box = await engine.create("sh", "-c", script, binds=[f"{tmp_path}:/bind"], init=True)
    await put(engine, box, "/", uid=1000, copy_uid_gid=True)
    await engine.start(box)
    await ready(engine, box)
    assert await execute(engine, box, "sh", "-c", "stat -c %u:%g /copied /bind/made; stat -c %u /bind/of-root") == (
        f"1000:1001\n0:0\n{NOBODY}\n"
    )
    assert (tmp_path / "made").stat().st_uid == FIRST
    assert b"denied" in await engine.logs(box, stdout=True, stderr=True)
    await put(engine, box, "/tmp", uid=1000)
    assert [(member.uid, member.gid) for member in await get(engine, box, "/tmp/copied")] == [(0, 0)]
    assert [(member.uid, member.gid) for member in await get(engine, box, "/file")] == [(7, 8)]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await put(engine, box, "/tmp", uid=70000, copy_uid_gid=True)
    assert "the user id 70000 is not one of the container's, 0 to 65535" in (refused.value.details() or "")

    process = Path(f"/proc/{await pid(engine, box)}")
    assert process.stat().st_uid == FIRST
    roots = Path(f"/run/slipway-{engine.instance}/roots").stat()
    assert (roots.st_mode & 0o777, roots.st_gid) == (0o710, FIRST)
    storage = Path(f"/var/lib/slipway-{engine.instance}/storage")
    assert {path.stat().st_mode & 0o777 for path in (storage, storage / "layers", storage / "containers")} == {0o700}
    layers = storage / f"containers/{box}/upper"
    assert ((layers / "file").stat().st_uid, (layers / "copied").stat().st_uid) == (7, 1000)

    await engine.kill(box)
    await engine.wait(box)
    assert [(member.uid, member.gid) for member in await get(engine, box, "/file")] == [(7, 8)]
    export = engine.containers.ExportContainer(pb.ExportContainerRequest(container=box), timeout=30)
    content = b"".join([answer.chunk async for answer in export])
    owners = {member.name: member.uid for member in members(content)}
    assert (owners["file"], owners["copied"], owners["bin/sh"]) == (7, 1000, 0)
    listed = await engine.containers.ListChanges(pb.ListChangesRequest(container=box), timeout=30)
    assert {change.path for change in listed.changes} >= {"/file", "/copied"}
    assert "/bin" not in {change.path for change in listed.changes}
    await engine.remove(box)


async def test_a_committed_image_has_the_ids_that_the_container_sees(engine: Slipway) -> None:
    box = await engine.run(
        "sh", "-c", "echo x > /file; chown 7:8 /file; mkdir /mine; rm /bin/mv; echo ready; sleep 300"
    )
    await ready(engine, box)
    request = image_pb.CommitContainerRequest(container=box, reference="committed:1")
    await engine.images.CommitContainer(request, timeout=30)
    for userns_mode in ("", "host"):
        config = container_pb2.ContainerConfig(
            image="committed:1", cmd=["sh", "-c", "stat -c %u:%g /file /mine; ls /bin/mv || echo gone"]
        )
        host = container_pb2.HostConfig(userns_mode=userns_mode)
        made = (await engine.containers.CreateContainer(pb.CreateContainerRequest(config=config, host_config=host))).id
        await engine.start(made)
        await engine.wait(made)
        assert (await engine.logs(made, stderr=False)).split() == [b"7:8", b"0:0", b"gone"]
        await engine.remove(made)
    await engine.kill(box)
    await engine.remove(box)
    await engine.images.RemoveImage(image_pb.RemoveImageRequest(image="committed:1"))


async def test_one_volume_for_both_kinds_of_users(engine: Slipway) -> None:
    script = "stat -c %u:%g /usr/sbin/. /data/.; touch /data/remapped; chown 5:6 /data/remapped; : > /usr/sbin/mine"
    binds = ["both:/data", "filled:/usr/sbin"]
    assert await engine.output("sh", "-c", script, binds=binds) == "0:0\n0:0\n"
    own = "stat -c %u:%g /data/remapped /usr/sbin/mine /data/.; touch /data/own; cat /proc/self/uid_map | tr -s ' '"
    said = await engine.output("sh", "-c", own, binds=binds, userns_mode="host")
    assert said == "5:6\n0:0\n0:0\n 0 0 4294967295\n"
    assert await engine.output("stat", "-c", "%u", "/data/own", binds=binds) == "0\n"
    request = volume_service_pb2.InspectVolumeRequest(volume="both")
    data = Path((await engine.volumes.InspectVolume(request, timeout=60)).volume.mountpoint)
    assert {path.name: path.stat().st_uid for path in data.iterdir()} == {"remapped": 5, "own": 0}
    for name in ("both", "filled"):
        await engine.volumes.RemoveVolume(volume_service_pb2.RemoveVolumeRequest(volume=name), timeout=60)


async def test_it_runs_on_when_the_executor_was_killed(engine: Slipway) -> None:
    one = await engine.run(
        *("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done"),
        ipc_mode="shareable",
        restart_policy=container_pb2.RestartPolicy(name="on-failure", maximum_retry_count=1),
    )
    two = await engine.run("sleep", "300", ipc_mode=f"container:{one}", pid_mode=f"container:{one}")
    before = [await pid(engine, box) for box in (one, two)]
    namespaces = [Path(f"/proc/{number}/ns/user").readlink() for number in before]
    assert namespaces[0] == namespaces[1] != Path("/proc/self/ns/user").readlink()
    await engine.executor.kill()
    await engine.executor.start()
    await engine.node_back()

    assert [await pid(engine, box) for box in (one, two)] == before
    assert await execute(engine, one, "sh", "-c", "id -u; echo out > /dev/stdout; : > /tmp/x") == "0\nout\n"
    assert await execute(engine, two, "sh", "-c", "id -u; kill -0 1 && echo may", user="0") == "0\nmay\n"
    assert await execute(engine, one, "sh", "-c", "id -u; tty", tty=True, user="77") == "77\r\n/dev/pts/0\r\n"
    await put(engine, one, "/tmp", uid=5, copy_uid_gid=True)
    assert await execute(engine, one, "stat", "-c", "%u", "/tmp/copied", "/tmp/x") == "5\n0\n"
    await engine.remove(two)
    await engine.containers.RestartContainer(pb.RestartContainerRequest(container=one, timeout=0), timeout=30)
    assert await execute(engine, one, "stat", "-c", "%u", "/tmp/copied", "/tmp/x") == "5\n0\n"
    await engine.remove(one)


async def test_health_and_standard_input(engine: Slipway) -> None:
    check = health_pb2.HealthConfig(test=["CMD-SHELL", "[ $(id -u) = 77 ] && echo well > /dev/stdout"])
    check.interval.FromMilliseconds(200)
    box = await engine.create(
        "cat", config={"user": "77:78", "open_stdin": True, "stdin_once": True, "healthcheck": check}
    )
    call = engine.containers.AttachContainer(timeout=30)
    target = pb.AttachTarget(container=box, stdin=True, stdout=True)
    await call.write(pb.AttachContainerRequest(attach=target))
    await engine.start(box)
    while (await engine.inspect(box)).state.health.status != health_pb2.HEALTH_STATUS_HEALTHY:
        await asyncio.sleep(0.05)
    await call.write(pb.AttachContainerRequest(stdin=b"typed\n"))
    await call.write(pb.AttachContainerRequest(close_stdin=True))
    await engine.wait(box)
    assert await engine.logs(box) == b"typed\n"
    await engine.remove(box)


async def test_the_range_can_change_and_go(engine: Slipway) -> None:
    """Stopped containers follow; one that runs keeps its users until it is started again."""
    flags = list(engine.executor.arguments)
    script = "cat /proc/self/uid_map | tr -s ' '; touch /made; stat -c %u /copied"
    stopped = await engine.create("sh", "-c", script, init=True)
    await put(engine, stopped, "/", uid=5, copy_uid_gid=True)
    running = await engine.run("sh", "-c", "touch /before; echo ready; sleep 300", ipc_mode="shareable")
    await ready(engine, running)
    await engine.executor.stop()
    engine.executor.arguments = [*flags[:-1], f"{FIRST * 2}:70000"]
    await engine.executor.start()
    await engine.node_back()

    await engine.start(stopped)
    await engine.wait(stopped)
    assert await engine.logs(stopped) == f" 0 {FIRST * 2} 70000\n5\n".encode()
    assert [member.uid for member in await get(engine, stopped, "/made")] == [0]
    await put(engine, running, "/tmp", uid=6, copy_uid_gid=True)
    assert await execute(engine, running, "stat", "-c", "%u", "/tmp/copied", "/before") == "6\n0\n"
    assert [member.uid for member in await get(engine, running, "/before")] == [0]
    joiner = await engine.create("true", ipc_mode=f"container:{running}")
    with pytest.raises(grpc.aio.AioRpcError, match="was started with other remapped users"):
        await engine.start(joiner)

    await engine.executor.stop()
    engine.executor.arguments = flags[:-2]
    await engine.executor.start()
    await engine.node_back()
    assert await execute(engine, running, "stat", "-c", "%u", "/before") == "0\n"
    assert [member.uid for member in await get(engine, stopped, "/copied")] == [5]
    with pytest.raises(grpc.aio.AioRpcError, match="the executor's userns_remap is off now") as refused:
        await engine.start(stopped)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    box = await create_when_known(engine, "cat", "/proc/self/uid_map")
    await engine.start(box)
    await engine.wait(box)
    assert (await engine.logs(box)).split() == [b"0", b"0", b"4294967295"]
    await engine.remove(box)

    for box in (joiner, running, stopped):
        await engine.remove(box)
