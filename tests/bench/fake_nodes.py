"""Executors that keep everything in memory, many in one process: `python -m tests.bench.fake_nodes DIRECTORY COUNT`.

Each has a socket of its own in the directory, see `node_address`. When all of them are there, the address `HEALTH` of
the directory says that they serve.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from common.logging import configure_logging
from tests.fixtures.fake_executor.executor import FakeExecutor

HEALTH = "health.sock"


def node_name(number: int) -> str:
    return f"n{number:04}"


def node_address(directory: Path, number: int) -> str:
    return f"unix://{_socket(directory, number)}"


def _socket(directory: Path, number: int) -> Path:
    return directory / f"{node_name(number)}.sock"


def main(arguments: Sequence[str]) -> int:
    directory, count = arguments
    # A line for each call would be measured with it.
    configure_logging(level="error", format="json")
    os.umask(0)  # the API service that dials them is another user, without privileges
    asyncio.run(_serve(Path(directory), int(count)))
    return 0


async def _serve(directory: Path, count: int) -> None:
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    async with AsyncExitStack() as stack:
        for number in range(count):
            executor = FakeExecutor(_socket(directory, number), node_id=node_name(number))
            await stack.enter_async_context(executor.serving())
        server, checks = grpc.aio.server(), health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        await checks.set("", health_pb2.HealthCheckResponse.SERVING)
        server.add_insecure_port(f"unix://{directory / HEALTH}")
        await server.start()
        stack.push_async_callback(server.stop, None)
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
