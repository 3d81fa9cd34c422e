"""A stranger's tool, with nothing but reflection: a real grpcurl takes a container through its life."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.busybox import busybox_archive
from tests.fixtures.slipway import Slipway, installed

GRPCURL = str(Path(sys.executable).parent / "grpcurl")


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Slipway]:
    async with installed(tmp_path) as engine:
        yield engine


async def grpcurl(engine: Slipway, *arguments: str, data: str = "", expect: int = 0) -> str:
    socket = engine.api.address.removeprefix("unix://")
    options = ["-plaintext", "-unix", *(["-d", "@"] if data else [])]
    process = await asyncio.create_subprocess_exec(
        *(GRPCURL, *options, socket, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(process.communicate(data.encode()), 60)
    assert (process.returncode == 0) == (expect == 0), error.decode()
    return (out if expect == 0 else error).decode()


async def call(engine: Slipway, method: str, message: dict[str, Any]) -> dict[str, Any]:
    answer = await grpcurl(engine, f"slipway.v1.{method}", data=json.dumps(message))
    return dict(json.loads(answer))


async def test_the_services_are_listed_and_described(engine: Slipway) -> None:
    listed = (await grpcurl(engine, "list")).split()

    assert {
        "slipway.v1.ContainerService",
        "slipway.v1.ImageService",
        "slipway.v1.SystemService",
        "grpc.health.v1.Health",
    } <= set(listed)
    described = await grpcurl(engine, "describe", "slipway.v1.CreateContainerRequest")
    assert "config" in described


async def test_a_containers_whole_life(engine: Slipway) -> None:
    await call(engine, "ImageService/LoadImage", {"chunk": base64.b64encode(busybox_archive()).decode()})
    created = await call(
        engine,
        "ContainerService/CreateContainer",
        {
            "name": "web",
            "config": {"image": "busybox", "cmd": ["sh", "-c", "trap '' TERM; echo ready; exec sleep 300"]},
        },
    )
    assert len(created["id"]) == 64

    await call(engine, "ContainerService/StartContainer", {"container": "web"})
    shown = await call(engine, "ContainerService/InspectContainer", {"container": created["id"][:12]})
    assert shown["container"]["state"]["status"] == "CONTAINER_STATUS_RUNNING"
    await call(engine, "ContainerService/StopContainer", {"container": "web", "timeout": 0})
    assert (await call(engine, "ContainerService/WaitContainer", {"container": "web"})) == {"exit_code": 137}
    [line] = (await call(engine, "ContainerService/StreamLogs", {"container": "web"}))["lines"]
    assert base64.b64decode(line["data"]) == b"ready\n"
    await call(engine, "ContainerService/RemoveContainer", {"container": "web"})
    assert await call(engine, "ContainerService/ListContainers", {"all": True}) == {}


async def test_a_wrong_request_names_every_field(engine: Slipway) -> None:
    request = {
        "name": "x",
        "config": {"image": "busybox", "env": ["=a"], "stop_signal": "SIGNOPE"},
        "host_config": {"shm_size": -1, "network_mode": "no where"},
    }

    said = await grpcurl(engine, "slipway.v1.ContainerService/CreateContainer", data=json.dumps(request), expect=1)

    for field in ("name", "config.env[0]", "config.stop_signal", "host_config.shm_size", "host_config.network_mode"):
        assert field in said
    assert await call(engine, "ContainerService/ListContainers", {"all": True}) == {}
