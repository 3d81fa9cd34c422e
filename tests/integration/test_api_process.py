"""The API service as a process started by root: what it is allowed, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from slipway.v1 import container_service_pb2 as pb2
from slipway.v1 import container_service_pb2_grpc as pb2_grpc
from slipway.v1 import node_service_pb2 as node_pb2
from slipway.v1 import node_service_pb2_grpc as node_grpc
from slipway.v1 import system_service_pb2 as system_pb2
from slipway.v1 import system_service_pb2_grpc as system_grpc

from common.healthcheck import serving
from common.service_account import service_account
from tests.fixtures.fake_executor.executor import FakeExecutor

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="privileges are given up by root")

_START = 60.0  # seconds


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that others than root can reach: those of pytest are closed to them by each run that begins."""
    with tempfile.TemporaryDirectory(prefix="slipway-api-process-") as made:
        (place := Path(made)).chmod(0o755)
        yield place


async def start(place: Path, *more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "api_service", "--state-dir", str(place / "state"), "--executor",
        f"unix://{place}/executor.sock", "--listen", f"unix://{place}/api.sock", *more,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
async def service(place: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await start(place)
    try:
        assert await serving(f"unix://{place}/api.sock", wait=_START)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def status(pid: int) -> list[dict[str, str]]:
    """Of every thread: the fields of proc_pid_status(5)."""
    return [
        dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]


async def test_no_thread_has_a_privilege(place: Path, service: asyncio.subprocess.Process) -> None:
    account = service_account()
    threads = status(service.pid)
    assert len(threads) > 1
    for thread in threads:
        assert thread["Uid"].split() == [str(account.uid)] * 4
        assert thread["Gid"].split() == [str(account.gid)] * 4
        assert thread["Groups"].split() == [str(account.gid)]
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(thread[name], 16) == 0, name
        assert thread["NoNewPrivs"] == "1"
    assert stat.S_IMODE((place / "state" / "api.db").stat().st_mode) == 0o600
    assert (place / "state" / "api.db").stat().st_uid == account.uid


async def test_serves_without_an_executor_and_ends_at_sigterm(place: Path, service: asyncio.subprocess.Process) -> None:
    async with grpc.aio.insecure_channel(f"unix://{place}/api.sock") as channel:
        stub = pb2_grpc.ContainerServiceStub(channel)
        assert not (await stub.ListContainers(pb2.ListContainersRequest(all=True))).containers
        events = system_grpc.SystemServiceStub(channel).StreamEvents(system_pb2.StreamEventsRequest())
        await events.initial_metadata()
        service.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(service.communicate(), _START)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await events.read()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    # It was told so at once: what the end of the grace of ten seconds cuts off hears nothing of it.
    assert "the API service is stopping" in (caught.value.details() or "")
    assert service.returncode == 0
    assert b"privileges dropped" in log
    assert b"CapEff=0000000000000000" in log


async def test_what_keeps_it_from_starting_is_said_in_a_line(place: Path, service: asyncio.subprocess.Process) -> None:
    for arguments, says in (
        (["--user", "root"], b"--user root: has uid 0"),
        (["--user", "nobody-of-that-name"], b"there is no such user"),
        (["--instance", "Bad_Name"], b"instance: "),
        (["--state-dir", str(place / "other")], b"another program serves it"),
        ([], b"another process uses this database"),
    ):
        process = await start(place, *arguments)
        _, log = await asyncio.wait_for(process.communicate(), _START)
        assert process.returncode == 2, log
        assert says in log.splitlines()[-1], log
        assert b"Traceback" not in log


async def test_another_name_for_a_node_that_is_on_record_ends_it(place: Path) -> None:
    """At once, or when the executor comes, until which it serves."""
    executor, address = FakeExecutor(place / "executor.sock"), f"unix://{place}/api.sock"
    async with AsyncExitStack() as stack:

        async def started(*arguments: str) -> asyncio.subprocess.Process:
            process = await start(place, *arguments)
            stack.push_async_callback(process.communicate)
            stack.callback(_kill, process)
            return process

        async def ended(process: asyncio.subprocess.Process) -> None:
            _, log = await asyncio.wait_for(process.communicate(), _START)
            assert process.returncode == 2, log
            assert b"start this service with --node local" in log.splitlines()[-1], log
            assert b"Traceback" not in log

        stack.push_async_callback(executor.down)
        await _up(executor, place)
        first = await started()
        assert await serving(address, wait=_START)
        await _until_ready(address)
        first.send_signal(signal.SIGTERM)
        await asyncio.wait_for(first.communicate(), _START)
        await ended(await started("--node", "renamed"))
        await executor.down()
        serves = await started("--node", "renamed")
        assert await serving(address, wait=_START)
        await _up(executor, place)
        await ended(serves)


async def _up(executor: FakeExecutor, place: Path) -> None:
    await executor.up()
    (place / "executor.sock").chmod(0o666)  # the service is not root


async def _until_ready(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(_START):
        stub = node_grpc.NodeServiceStub(channel)
        ready = node_pb2.ListNodesRequest(state=[node_pb2.NODE_STATE_READY])
        while not (await stub.ListNodes(ready)).nodes:
            await asyncio.sleep(0.05)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()


async def test_a_socket_of_somebody_else_is_left_alone(place: Path) -> None:
    path = place / "taken.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        other.listen()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "api_service", "--state-dir", str(place / "state")),
            *("--listen", f"unix://{path}"),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await asyncio.wait_for(process.communicate(), _START)

    assert process.returncode == 2
    assert "something else is there" in said.decode()
    assert path.is_socket()
