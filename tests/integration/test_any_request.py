"""Whatever is asked for at create: what is accepted starts, or fails with an error that says why, and leaves nothing;
what is rejected has done nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple, TypeVar

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slipway.v1 import container_pb2, health_pb2, mount_pb2, resources_pb2
from slipway.v1 import container_service_pb2 as pb
from slipway.v1 import volume_service_pb2 as volumes_pb

from tests.fixtures.slipway import Slipway, installed

pytestmark = pytest.mark.asyncio(loop_scope="module")

V = TypeVar("V")

_CLEAR = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def _mostly(usual: V, *unusual: V) -> st.SearchStrategy[V]:
    return st.sampled_from([*[usual] * 12, *unusual])


_PATHS = st.sampled_from(["/data", "/data/deep", "/tmp", "/etc", "/etc/hosts", "/bin", "/proc", "/", "rel", "/a/../b"])
_SOURCES = st.sampled_from(["/tmp", "/etc/hostname", "/missing", "/dev/null", "vol-a", "vol-b", "x", "", "rel/path"])
_NAMES = st.sampled_from(["", "a", "A-1", "web.example", "-bad", "x" * 64, "été"])
_SMALL = st.integers(-2, 3)
_LENGTHS = st.builds(Duration, seconds=st.integers(-1, 2), nanos=st.sampled_from([0, 500_000, 5_000_000]))
_CAPABILITIES = st.lists(st.sampled_from(["ALL", "NET_ADMIN", "cap_sys_admin", "CHOWN", "NOT_A_CAP", ""]), max_size=3)

_RESOURCES = st.builds(
    resources_pb2.Resources,
    memory=st.sampled_from([0, 0, 1, 6 << 20, 64 << 20, -1]),
    memory_reservation=st.sampled_from([0, 0, 4 << 20, 32 << 20]),
    memory_swap=st.sampled_from([0, 0, -1, 64 << 20, 128 << 20]),
    cpu_shares=st.sampled_from([0, 2, 1, 1024, -5]),
    nano_cpus=st.sampled_from([0, 0, 500_000_000, 10**15]),
    cpu_period=st.sampled_from([0, 0, 100_000, 5]),
    cpu_quota=st.sampled_from([0, 0, -1, 50_000, 999]),
    cpuset_cpus=st.sampled_from(["", "", "0", "0-1", "99", "a,b"]),
    pids_limit=st.sampled_from([0, -1, 50, 100]),
)
_MOUNTS = st.builds(
    mount_pb2.Mount,
    type=st.sampled_from(["bind", "volume", "tmpfs", "image", "npipe", ""]),
    source=_SOURCES,
    target=_PATHS,
    read_only=st.booleans(),
)
_HEALTH = st.builds(
    health_pb2.HealthConfig,
    test=st.sampled_from([[], ["NONE"], ["CMD", "true"], ["CMD-SHELL", "exit 1"], ["CMD"], ["what"]]),
    interval=_LENGTHS,
    timeout=_LENGTHS,
    retries=_SMALL,
)
_CONFIGS = st.builds(
    container_pb2.ContainerConfig,
    image=_mostly("busybox", "nothing-like-it", "Bad Name", ""),
    cmd=_mostly(["sh", "-c", "exit 3"], ["missing-program"], ["/etc"], [], [""]),
    entrypoint=st.sampled_from([[], [], ["sh", "-c"], [""]]),
    env=st.lists(st.sampled_from(["A=b", "PATH", "=x", "", "LONG=" + "x" * 5000]), max_size=2),
    hostname=_NAMES,
    user=st.sampled_from(["", "", "root", "1000:1000", "nobody", "ghost", "4294967296", "9" * 5000, "a:b:c"]),
    working_dir=st.sampled_from(["", "", "/data/new", "/proc/self/fd/7", "/dev/fd/3", "relative"]),
    tty=st.booleans(),
    open_stdin=st.booleans(),
    stop_signal=st.sampled_from(["", "SIGINT", "rtmin+1", "SIGNONE", "0"]),
    volumes=st.lists(_PATHS, max_size=2),
    healthcheck=_HEALTH,
)
_HOST_CONFIGS = st.builds(
    container_pb2.HostConfig,
    network_mode=st.sampled_from(["", "none", "host", "bridge", "container:x", "my-net"]),
    resources=_RESOURCES,
    mounts=st.lists(_MOUNTS, max_size=2),
    binds=st.lists(st.builds("{}:{}{}".format, _SOURCES, _PATHS, st.sampled_from(["", ":ro", ":bad"])), max_size=2),
    tmpfs=st.dictionaries(_PATHS, st.sampled_from(["", "size=1m", "size=lots"]), max_size=1),
    cap_add=_CAPABILITIES,
    cap_drop=_CAPABILITIES,
    privileged=st.booleans(),
    security_opt=st.lists(st.sampled_from(["no-new-privileges", "seccomp=unconfined", "seccomp={", "x=y"]), max_size=2),
    sysctls=st.dictionaries(
        st.sampled_from(["net.ipv4.ip_forward", "kernel.msgmax", "vm.swappiness"]), st.just("1"), max_size=1
    ),
    ulimits=st.lists(
        st.builds(
            resources_pb2.Ulimit, name=st.sampled_from(["nofile", "core", "what"]), soft=st.just(64), hard=st.just(64)
        ),
        max_size=1,
    ),
    devices=st.lists(
        st.builds(resources_pb2.DeviceMapping, path_on_host=st.sampled_from(["/dev/null", "/dev/none", "/tmp"])),
        max_size=1,
    ),
    oom_score_adj=st.sampled_from([0, 500, 1001]),
    log_config=st.builds(
        container_pb2.LogConfig,
        type=st.sampled_from(["", "", "none", "syslog"]),
        config=st.dictionaries(
            st.sampled_from(["mode", "mode", "max-size", "max-buffer-size"]),
            st.sampled_from(["non-blocking", "non-blocking", "1m", "big"]),
            max_size=2,
        ),
    ),
    storage_opt=st.dictionaries(st.sampled_from(["size", "inodes"]), st.sampled_from(["1g", "big"]), max_size=1),
    device_requests=st.lists(
        st.builds(
            resources_pb2.DeviceRequest,
            driver=st.sampled_from(["cdi", "nvidia"]),
            device_ids=st.lists(st.sampled_from(["example.com/gadget=one", "gpu"]), max_size=1),
        ),
        max_size=1,
    ),
    ipc_mode=st.sampled_from(["", "", "none", "host", "shareable", "container:ghost", "bad"]),
    pid_mode=st.sampled_from(["", "", "host", "bad"]),
    readonly_rootfs=st.booleans(),
    init=st.booleans(),
    shm_size=st.sampled_from([0, 1 << 20, -1]),
)


T = TypeVar("T", bound=Message)


def _some_fields_of(kind: type[T], filled: st.SearchStrategy[T], *, always: set[str]) -> st.SearchStrategy[T]:
    """With a few of the fields only: of requests with all of them hardly any would be accepted."""

    def some(full: T, kept: set[str]) -> T:
        for field, _ in full.ListFields():
            if field.name not in kept | always:
                full.ClearField(field.name)
        return full

    names = st.sampled_from([field.name for field in kind.DESCRIPTOR.fields])
    return st.builds(some, filled, st.sets(names, max_size=3))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slipway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Slipway]:
    async with installed(tmp_path_factory.mktemp("slipway")) as engine:
        yield engine


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    config=_some_fields_of(container_pb2.ContainerConfig, _CONFIGS, always={"image", "cmd"}),
    host_config=_some_fields_of(container_pb2.HostConfig, _HOST_CONFIGS, always=set()),
)
async def test_a_request_is_whole_or_nothing(
    slipway: Slipway, config: container_pb2.ContainerConfig, host_config: container_pb2.HostConfig
) -> None:
    before = await _known(slipway)
    request = pb.CreateContainerRequest(config=config, host_config=host_config)
    try:
        container = (await slipway.containers.CreateContainer(request, timeout=30)).id
    except grpc.aio.AioRpcError as error:
        assert error.code() in _CLEAR, error.details()
        assert await _known(slipway) == before
        return
    try:
        await slipway.start(container)
    except grpc.aio.AioRpcError as error:
        assert error.code() in _CLEAR, error.details()
        assert container[:12] in (error.details() or "") or "container" in (error.details() or "")
    await slipway.containers.RemoveContainer(
        pb.RemoveContainerRequest(container=container, force=True, volumes=True), timeout=30
    )
    for name in sorted((await _known(slipway)).volumes - before.volumes):
        await slipway.volumes.RemoveVolume(volumes_pb.RemoveVolumeRequest(volume=name), timeout=30)
    assert await _known(slipway) == before


class _Known(NamedTuple):
    containers: frozenset[str]
    volumes: frozenset[str]


async def _known(slipway: Slipway) -> _Known:
    listed = await slipway.containers.ListContainers(pb.ListContainersRequest(all=True), timeout=30)
    volumes = await slipway.volumes.ListVolumes(volumes_pb.ListVolumesRequest(), timeout=30)
    return _Known(
        containers=frozenset(container.id for container in listed.containers),
        volumes=frozenset(volume.name for volume in volumes.volumes),
    )
