"""The attach socket of a monitor, with the monitor's end of it in the test's hands."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

from executor_service.streams.attach_client import AttachClient
from executor_service.streams.monitor_connection import MonitorConnection
from tests.fixtures.fake_host.specs import container_spec


async def test_what_was_written_arrives_when_the_monitor_ends_without_reading_all_that_was_typed(
    tmp_path: Path,
) -> None:
    """The kernel tells of the unread input before it gives out what had come (unix(7), ECONNRESET)."""
    ended = asyncio.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "attach"))
        listening.listen()
        spec = replace(container_spec(), open_stdin=True)
        connection = MonitorConnection(spec, tmp_path, on_end=ended.set)
        monitor, _ = listening.accept()
    client = AttachClient(stdin=True, stdout=True, stderr=True)
    connection.take(client)
    await connection.write(b"more than it wants")
    monitor.send(b"\x02last words")
    monitor.close()
    async with asyncio.timeout(60):
        await ended.wait()
        output = await client.read()
        assert output is not None
        assert output.data == b"last words"
        assert await client.read() is None
