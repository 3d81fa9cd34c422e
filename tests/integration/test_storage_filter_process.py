"""The process a layer is filtered in: it has nothing, and ends with whoever wanted it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import pytest

from common.errors import Internal, ResourceExhausted
from executor_service.run import MINIMAL_ENVIRONMENT
from executor_service.storage import filter_program
from executor_service.storage.filter_program import NOBODY, Order
from executor_service.storage.spool import size_of
from executor_service.storage.unpack import Blob, Unpacker, UnpackLimits
from tests.fixtures.images import member, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives its privileges up: needs root")

LARGE = 1 << 40  # bytes, of which nothing is written: reading them takes a quarter of an hour
LIMITS = UnpackLimits(bytes=2 * LARGE, seconds=60)


@pytest.fixture
async def unpacker() -> AsyncIterator[Unpacker]:
    async with Unpacker(limits=LIMITS) as made:
        yield made


@pytest.fixture
def silent() -> Iterator[BinaryIO]:
    """A layer that is long, and of which tar gets to see nothing: a whiteout with a content."""
    with tempfile.TemporaryFile() as file:
        info = member(".wh.gone")[0]
        info.size = LARGE
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + LARGE + 1024)
        yield file


def _filters() -> list[int]:
    """Those that are at work for this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it ended meanwhile
            for pid in (task / "children").read_text().split():
                if filter_program.__name__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


async def test_it_has_no_privileges_and_can_open_nothing(unpacker: Unpacker, tmp_path: Path, silent: BinaryIO) -> None:
    seen: dict[str, str] = {}

    def look() -> None:
        (pid,) = _filters()
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        seen.update((key, value.strip()) for key, _, value in (line.partition(":") for line in lines))
        (limit,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "open files" in line]
        seen["open"] = " ".join(limit.split()[3:5])
        seen["descriptors"] = str(len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208 - names only
        archive = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[-4]
        seen["archive"] = Path(f"/proc/{pid}/fdinfo/{archive}").read_text()
        raise ResourceExhausted("seen")

    with pytest.raises(ResourceExhausted, match="seen"):
        await _unpack(unpacker, silent, tmp_path, room=look)
    assert seen["Uid"].split() == seen["Gid"].split() == [str(NOBODY)] * 4
    assert seen["Groups"] == ""
    assert {int(seen[kind], 16) for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert seen["open"] == "0 0"
    assert seen["descriptors"] == "7"  # three that everybody has, control, archive, record, tar
    assert int(seen["archive"].partition("flags:\t")[2].split()[0], 8) & os.O_ACCMODE == os.O_RDONLY


async def test_a_cancel_ends_it_even_when_it_writes_nothing(
    unpacker: Unpacker, tmp_path: Path, silent: BinaryIO
) -> None:
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    asked: list[list[int]] = []

    def room() -> None:
        asked.append(_filters())
        loop.call_soon_threadsafe(begun.set)

    task = asyncio.create_task(_unpack(unpacker, silent, tmp_path, room=room))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asked[0] != []
    assert _filters() == []


def test_it_ends_with_the_executor(silent: BinaryIO) -> None:
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe()
    with theirs, tempfile.TemporaryFile() as record:
        order = Order(offset=0, size=size_of(silent), digest=None, max_bytes=LARGE * 2, max_entries=10, memory=1 << 30)
        given = [theirs.fileno(), silent.fileno(), record.fileno(), write_end]
        process = subprocess.Popen(
            [sys.executable, "-I", "-m", filter_program.__name__, json.dumps(asdict(order)), *map(str, given)],
            pass_fds=given,
            env=dict(MINIMAL_ENVIRONMENT),
        )
    os.close(write_end)
    with ours:
        ours.settimeout(60)
        ours.recv(100)
        ours.sendall(b"+")
    # Nobody answers any more.
    assert process.wait(60) == 0
    assert os.read(read_end, 1 << 20).strip(b"\0") == b""
    os.close(read_end)


async def test_one_that_dies_is_told_of(unpacker: Unpacker, tmp_path: Path, silent: BinaryIO) -> None:
    def kill() -> None:
        for pid in _filters():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(Internal, match="the program that reads it failed"):
        await _unpack(unpacker, silent, tmp_path, room=kill)
    assert _filters() == []


async def test_its_memory_is_bounded(tmp_path: Path) -> None:
    below = "/".join(["d" * 250] * 15)
    with tempfile.TemporaryFile() as file:
        file.write(tar(member(f"{below}/{number}") for number in range(12_000)))
        file.flush()
        async with Unpacker(limits=UnpackLimits(seconds=60, memory=48 << 20)) as small:
            with pytest.raises(ResourceExhausted, match="more than 48 MiB of memory") as refused:
                await _unpack(small, file, tmp_path)
    assert refused.value.reason == "IMAGE_TOO_LARGE"


async def _unpack(
    unpacker: Unpacker, layer: BinaryIO, target: Path, *, room: Callable[[], None] = lambda: None
) -> None:
    blob = Blob(file=layer, offset=0, size=size_of(layer))
    await unpacker.unpack(blob, target, record=Path(os.devnull), room=room)
