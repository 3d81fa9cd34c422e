"""Rules that stand in the protocol: each names its field and says what would be right."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from slipway.v1 import container_pb2, resources_pb2
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import system_service_pb2 as system_pb2

from tests.fixtures.api import Api, refused

HOST = "host_config."
RATE = resources_pb2.ThrottleDevice


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"image": ""}, "image", "names the image to run, for example 'busybox:latest'"),
        ({"image": "a/" * 1_000_000}, "image", "is longer than 255 characters"),
        ({"hostname": "-web"}, "hostname", "must be a host name of RFC 1123"),
        ({"hostname": "a" * 64}, "hostname", "63 bytes in all"),
        ({"domainname": "a..b"}, "domainname", "must be a domain name of RFC 1123"),
        ({"user": "u" * 257}, "user", "256"),
        ({"env": ["A=1", "=x"]}, "env[1]", "must be KEY=value or a bare KEY"),
        ({"env": [""]}, "env[0]", "with a non-empty KEY"),
        ({"env": ["A=\0"]}, "env[0]", "no NUL character"),
        ({"cmd": ["a", "\0"]}, "cmd[1]", "must not contain a NUL character"),
        ({"entrypoint": ["\0"]}, "entrypoint[0]", "must not contain a NUL character"),
        ({"shell": ["sh", "-c\0"]}, "shell[1]", "must not contain a NUL character"),
        ({"working_dir": "srv"}, "working_dir", "must be an absolute path"),
        ({"working_dir": "/" + "a" * 4095}, "working_dir", "at most 4095 bytes"),
        ({"labels": {"a" * 1025: ""}}, "labels", "a key of at most 1024"),
        ({"stop_timeout": -2}, "stop_timeout", "must be a number of seconds, or -1"),
    ],
)
async def test_of_the_portable_part(api: Api, changes: dict[str, Any], field: str, sentence: str) -> None:
    config = container_pb2.ContainerConfig(**{"image": "busybox", "cmd": ["sleep"], **changes})
    refusal = await refused(api.containers.CreateContainer(pb2.CreateContainerRequest(config=config)))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [f"config.{field}"]
    assert sentence in refusal.violations[f"config.{field}"]


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"shm_size": -1}, "shm_size", "cannot be negative; 0 means the default of 64 MiB"),
        ({"annotations": {"": "x"}}, 'annotations[""]', "keys must not be empty"),
        ({"console_size": container_pb2.ConsoleSize(height=65536)}, "console_size.height", "65535"),
        (
            {"resources": resources_pb2.Resources(blkio_device_read_bps=[RATE(path="sda", rate=1)])},
            "resources.blkio_device_read_bps[0].path",
            "must be an absolute path, for example /dev/sda",
        ),
        (
            {"resources": resources_pb2.Resources(blkio_device_write_iops=[RATE(path="/dev/sda")])},
            "resources.blkio_device_write_iops[0].rate",
            "must be at least 1 a second",
        ),
        (
            {
                "resources": resources_pb2.Resources(
                    blkio_weight_device=[resources_pb2.WeightDevice(path="/dev/sda", weight=9)]
                )
            },
            "resources.blkio_weight_device[0].weight",
            "is a weight from 10 to 1000",
        ),
    ],
)
async def test_of_the_hosts_part(api: Api, changes: dict[str, Any], field: str, sentence: str) -> None:
    request = pb2.CreateContainerRequest(
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]),
        host_config=container_pb2.HostConfig(**changes),
    )
    refusal = await refused(api.containers.CreateContainer(request))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(refusal.violations) == [f"{HOST}{field}"]
    assert sentence in refusal.violations[f"{HOST}{field}"]


@pytest.mark.parametrize("address", ["nonsense", "01:00:5e:00:00:01", "02:42:ac:11:00"])
async def test_of_a_hardware_address(api: Api, address: str) -> None:
    request = pb2.CreateContainerRequest(
        config=container_pb2.ContainerConfig(image="busybox", cmd=["sleep"]),
        networking_config=container_pb2.NetworkingConfig(
            endpoints_config={"bridge": container_pb2.EndpointSettings(mac_address=address)}
        ),
    )
    refusal = await refused(api.containers.CreateContainer(request))
    [(field, sentence)] = refusal.violations.items()
    assert field == 'networking_config.endpoints_config["bridge"].mac_address'
    assert "must be six hex pairs separated by colons, not multicast" in sentence


async def test_a_moment_may_have_more_nanoseconds_than_a_second(api: Api) -> None:
    await api.create()
    moment = Timestamp(seconds=1, nanos=2_000_000_000)
    answer = await api.containers.PruneContainers(pb2.PruneContainersRequest(until=moment))
    assert list(answer.containers) == []
    stream = api.system.StreamEvents(system_pb2.StreamEventsRequest(since=Timestamp(nanos=2_000_000_000), until=moment))
    assert [item async for item in stream] == []
