"""Fields of a request that no other file shows: what comes of them inside the container, or in the kernel's files."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_pb2, health_pb2, mount_pb2, resources_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import image_service_pb2 as image_pb
from slipway.v1 import system_service_pb2 as system_pb
from slipway.v1 import volume_service_pb2 as volume_pb

from tests.fixtures.busybox import busybox_image
from tests.fixtures.cgroup_files import cgroup_file, needs_v1
from tests.fixtures.images import BuiltImage, docker_archive
from tests.fixtures.slipway import CHUNK, Slipway, installed

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
CONFIGURED = {
    "Entrypoint": ["sh", "-c"],
    "Cmd": ["id -u; pwd; echo $FROM $DROP"],
    "Env": ["PATH=/bin", "FROM=image", "DROP=me"],
    "WorkingDir": "/image/dir",
    "User": "www-data",
    "Labels": {"from": "image", "both": "image"},
    "StopSignal": "SIGUSR1",
    "Volumes": {"/data": {}},
    "ExposedPorts": {"80/tcp": {}},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slipway]:
    async with installed(tmp_path_factory.mktemp("services")) as engine:
        image = BuiltImage(layers=busybox_image().layers, config=CONFIGURED, names=["configured:latest"])
        archive = docker_archive(image)
        await engine.images.LoadImage(
            image_pb.LoadImageRequest(chunk=archive[at : at + CHUNK]) for at in range(0, len(archive), CHUNK)
        )
        yield engine


async def configured(engine: Slipway, **config: Any) -> str:
    request = pb.CreateContainerRequest(config=container_pb2.ContainerConfig(image="configured", **config))
    container = (await engine.containers.CreateContainer(request, timeout=60)).id
    await engine.start(container)
    return container


async def said(engine: Slipway, **config: Any) -> list[str]:
    container = await configured(engine, **config)
    await engine.wait(container)
    lines = (await engine.logs(container)).decode().splitlines()
    await engine.remove(container, volumes=True)
    return lines


async def until(condition: Callable[[], object]) -> None:
    """Ends with the test's own timeout."""
    while not condition():
        await asyncio.sleep(0.02)


async def test_what_the_image_says_and_what_the_request_says_instead(engine: Slipway) -> None:
    assert await said(engine) == ["33", "/image/dir", "image me"]
    assert await said(
        engine,
        cmd=["id -u; id -g; pwd; echo $FROM ${DROP-gone} $NEW; hostname; echo $HOSTNAME"],
        env=["FROM=request", "DROP", "NEW=new"],
        user="nobody:users",
        working_dir="/made/dir",
        hostname="named",
    ) == ["65534", "100", "/made/dir", "request gone new", "named", "named"]
    assert await said(engine, entrypoint=["echo", "alone"]) == ["alone"]
    assert await said(engine, entrypoint=[""], cmd=["echo", "bare"]) == ["bare"]


async def test_labels_ports_and_volumes_are_added_to_the_images(engine: Slipway) -> None:
    container = await configured(
        engine,
        cmd=["sleep 300"],
        labels={"both": "request", "own": "request"},
        exposed_ports=["81/udp"],
        volumes=["/more"],
    )
    found = await engine.inspect(container)
    assert dict(found.config.labels) == {"from": "image", "both": "request", "own": "request"}
    assert list(found.config.exposed_ports) == ["80/tcp", "81/udp"]
    mounted = Path(f"/proc/{found.state.pid}/mounts").read_text()
    assert (" /data " in mounted, " /more " in mounted) == (True, True)
    await engine.remove(container, volumes=True)


async def test_a_stop_begins_with_the_signal_asked_for_and_waits_as_long_as_asked(engine: Slipway) -> None:
    ending = "trap 'exit {}' {}; echo ready; while :; do sleep 0.05; done"
    images = await configured(engine, cmd=[ending.format(5, "USR1")])
    own = await configured(engine, cmd=[ending.format(6, "HUP")], stop_signal="hup")
    longer = 12  # seconds, where the default is 10
    deaf = await engine.run(
        "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done", config={"stop_timeout": longer}
    )
    for container in (images, own, deaf):
        while await engine.logs(container) != b"ready\n":
            await asyncio.sleep(0.02)
    begun = time.monotonic()
    stopping = asyncio.ensure_future(
        engine.containers.StopContainer(pb.StopContainerRequest(container=deaf), timeout=60)
    )
    for container, code in ((images, 5), (own, 6)):
        await engine.containers.StopContainer(pb.StopContainerRequest(container=container), timeout=60)
        assert (await engine.wait(container)).exit_code == code
    await stopping
    assert time.monotonic() - begun >= longer
    assert (await engine.wait(deaf)).exit_code == 137
    for container in (images, own, deaf):
        await engine.remove(container, volumes=True)


async def test_a_check_has_its_shell_and_is_made_often_and_patiently_at_first(engine: Slipway) -> None:
    check = health_pb2.HealthConfig(
        test=["CMD-SHELL", "[ -e /tmp/well ] || { touch /tmp/well; exit 1; }"],
        interval=Duration(seconds=60),
        start_period=Duration(seconds=50),
        start_interval=Duration(nanos=50_000_000),
        retries=1,
    )
    container = await engine.run(
        *("sleep", "300"),
        config={"healthcheck": check, "shell": ["/bin/sh", "-xc"]},
    )
    call = engine.system.StreamEvents(
        system_pb.StreamEventsRequest(since=Timestamp(seconds=1), container=[container], action=["health_status"]),
        timeout=30,
    )
    # With the usual interval it would be a minute, and with one failure of many counted, unhealthy.
    async for _ in call:
        break
    call.cancel()
    health = (await engine.inspect(container)).state.health
    assert health.status == health_pb2.HEALTH_STATUS_HEALTHY
    assert 1 in {probe.exit_code for probe in health.log}
    assert health.log[-1].output == "+ '[' -e /tmp/well ]\n"
    await engine.remove(container)


async def test_surroundings(engine: Slipway) -> None:
    container = await engine.run(
        *("sh", "-c", "ls /sys/class/net; grep ' /dev/shm ' /proc/mounts; tty; echo $TERM; exec sleep 300"),
        config={"network_disabled": True, "tty": True},
        shm_size=3 * MIB,
        annotations={"org.example.owner": "me"},
        runtime="runc",
    )
    while (await engine.logs(container)).count(b"\n") < 4:
        await asyncio.sleep(0.02)
    network, shm, terminal, kind = (await engine.logs(container)).decode().splitlines()
    assert (network.split(), terminal.strip(), kind.strip()) == (["lo"], "/dev/pts/0", "xterm")
    assert "size=3072k" in shm
    run = Path(f"/run/slipway-{engine.instance}")
    told = json.loads((run / "bundles" / container / "config.json").read_text())["annotations"]
    assert told["org.example.owner"] == "me"
    assert (run / "runtime" / "runc" / container).is_dir()
    await engine.remove(container)


async def test_options_of_mounts(engine: Slipway) -> None:
    options = mount_pb2.VolumeOptions(no_copy=True, labels={"kept": "yes"})
    tmpfs = mount_pb2.TmpfsOptions(options=["exec", "uid=33"])
    shown = await engine.output(
        *("sh", "-c", "ls -A /etc | wc -l; stat -c %u /run; cp /bin/busybox /run/true; /run/true && echo ran"),
        mounts=[
            mount_pb2.Mount(type="volume", source="empty", target="/etc", volume_options=options),
            mount_pb2.Mount(type="tmpfs", target="/run", tmpfs_options=tmpfs),
        ],
    )
    count, *rest = shown.split()
    assert int(count) <= 4  # the names' files, and nothing of the image's
    assert rest == ["33", "ran"]
    made = (await engine.volumes.InspectVolume(volume_pb.InspectVolumeRequest(volume="empty"), timeout=60)).volume
    assert dict(made.labels) == {"kept": "yes"}
    assert not (Path(made.mountpoint) / "passwd").exists()


@needs_v1
async def test_a_period_with_its_quota_and_swap_without_bound(engine: Slipway) -> None:
    wanted = resources_pb2.Resources(memory=64 * MIB, memory_swap=-1, cpu_period=50_000, cpu_quota=20_000)
    container = await engine.run("sleep", "300", resources=wanted)
    files = ("cpu.cfs_period_us", "cpu.cfs_quota_us", "memory.memsw.limit_in_bytes")
    period, quota, swap = (int(cgroup_file(engine, container, each)) for each in files)
    assert (period, quota) == (50_000, 20_000)
    assert swap > 2**60
    await engine.remove(container)


async def test_a_container_that_removes_itself_leaves_nothing(engine: Slipway) -> None:
    before = (await engine.volumes.ListVolumes(volume_pb.ListVolumesRequest(), timeout=60)).volumes
    container = await engine.run("true", auto_remove=True, binds=["/anonymous"])
    kept = Path(f"/var/lib/slipway-{engine.instance}/containers/{container}")
    await until(lambda: not kept.exists())
    while (answer := await refused_or_there(engine, container)) is not grpc.StatusCode.NOT_FOUND:
        assert answer is None
        await asyncio.sleep(0.02)
    left = (await engine.volumes.ListVolumes(volume_pb.ListVolumesRequest(), timeout=60)).volumes
    assert [each.name for each in left] == [each.name for each in before]


async def refused_or_there(engine: Slipway, container: str) -> grpc.StatusCode | None:
    try:
        await engine.inspect(container)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None
