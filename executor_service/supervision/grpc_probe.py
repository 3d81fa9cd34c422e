"""A gRPC health check over a connection that stands. Source: https://grpc.io/docs/guides/health-checking/

gRPC takes no connection that somebody else has made, so it is led through a unix socket of our own to the one we have.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

_CHUNK = 65536


async def ask_health(connection: socket.socket, *, service: str, directory: Path) -> tuple[bool, str]:
    """Whether the server, or the service, says SERVING, and what it says. Closes the connection. Raises OSError."""
    async with (
        _led_to(connection, directory) as address,
        grpc.aio.insecure_channel(address, options=_OPTIONS) as channel,
    ):
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health_pb2.HealthCheckRequest(service=service))
        except grpc.aio.AioRpcError as error:
            return False, f"{error.code().name}: {error.details()}"
    words = health_pb2.HealthCheckResponse.ServingStatus
    status = words.Name(answer.status) if answer.status in words.values() else str(answer.status)
    return answer.status == health_pb2.HealthCheckResponse.SERVING, status


# Not shared with other probes, and the name of the machine's proxy is none of its business.
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.default_authority", "localhost"),
)


@asynccontextmanager
async def _led_to(connection: socket.socket, directory: Path) -> AsyncIterator[str]:
    """The address of a unix socket, for us alone, whose first connection is the given one."""
    pumps: list[asyncio.Task[None]] = []
    taken = False

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        if taken:
            writer.transport.abort()
            return
        taken = True
        far_reader, far_writer = await asyncio.open_connection(sock=connection)
        pumps.append(asyncio.create_task(_pump(reader, far_writer)))
        pumps.append(asyncio.create_task(_pump(far_reader, writer)))

    path = directory / f"{secrets.token_hex(4)}.sock"
    try:
        await asyncio.to_thread(directory.mkdir, mode=0o700, exist_ok=True)
        server = await asyncio.start_unix_server(accepted, path=path)
        try:
            yield f"unix:{path}"
        finally:
            server.close()
            for pump in pumps:
                pump.cancel()
            if pumps:
                await asyncio.wait(pumps)
    finally:
        path.unlink(missing_ok=True)
        if not taken:
            connection.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass  # the other side tells gRPC
    finally:
        writer.transport.abort()
