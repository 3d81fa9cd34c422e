"""A node that answers an upload before it has all of it: what it says reaches the caller, whenever it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from slipway.executor.v1 import file_service_pb2 as file_pb2
from slipway.executor.v1 import file_service_pb2_grpc as file_grpc

from api_service.deadline import Deadline
from api_service.executor_client.files import ArchiveTarget
from api_service.executor_grpc.executor import GrpcExecutor
from common.errors import NotFound

ATTEMPTS = 200  # with a write that fails under way, two in a hundred hid what the node had said


class _Refuses(file_grpc.FileServiceServicer):
    async def PutArchive(self, requests: AsyncIterator[file_pb2.PutArchiveRequest], context: Any) -> Any:
        await anext(requests)
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such directory")


@pytest.fixture
async def refusing(tmp_path: Path) -> AsyncIterator[GrpcExecutor]:
    server = grpc.aio.server()
    file_grpc.add_FileServiceServicer_to_server(_Refuses(), server)  # type: ignore[abstract]  # nobody makes the other calls
    address = f"unix://{tmp_path}/executor.sock"
    server.add_insecure_port(address)
    await server.start()
    async with GrpcExecutor(node="local", address=address) as executor:
        yield executor
    await server.stop(None)


async def test_an_early_refusal_is_told_whatever_is_still_being_sent(refusing: GrpcExecutor) -> None:
    async def chunks(size: int) -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * size

    target = ArchiveTarget(container_id="a" * 64, path="/nowhere")
    for attempt in range(ATTEMPTS):
        with pytest.raises(NotFound, match="no such directory"):
            await refusing.files.put_archive(target, chunks(attempt * 331 % 65536 + 1), deadline=Deadline.after(60))
