"""What the executor makes of what the filter's process says, whatever that is."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import Internal, InvalidArgument, ResourceExhausted
from executor_service.run import Completed
from executor_service.storage.filter_process import FilterProcess

PASSED = {"diff_id": "sha256:00", "tar_size": 1, "size": 1, "entries": 1, "ended": True, "overwritten": False}
STRANGE: dict[str, object] = {
    "no message": 7,
    "nothing": [],
    "unknown": ["what"],
    "no fields": ["passed"],
    "other fields": ["passed", {"diff_id": ""}],
    "unknown class": ["refused", "SystemExit", "", ""],
    "no number": ["failed", "1", ""],
    "an end too early": ["end"],
}


@asynccontextmanager
async def saying(*messages: bytes) -> AsyncIterator[FilterProcess]:
    """A process that says these, each a line, and ends."""
    ours, theirs = socket.socketpair()

    async def program() -> Completed:
        return Completed(argv=("filter",), returncode=0, stdout=b"", stderr=b"")

    with ours, ours.makefile("rb") as lines, ThreadPoolExecutor(1) as pool:
        with theirs:
            theirs.sendall(b"".join(message + b"\n" for message in messages))
        yield FilterProcess(ours, lines, asyncio.create_task(program()), pool)


def _message(*words: object) -> bytes:
    return json.dumps(words).encode()


async def test_what_passed_and_how_often_it_asked() -> None:
    asked: list[None] = []
    async with saying(_message("room"), _message("room"), _message("passed", PASSED)) as process:
        assert (await process.passed(lambda: asked.append(None))).diff_id == "sha256:00"
    assert len(asked) == 2


async def test_what_it_counts_is_told_and_so_is_what_passed() -> None:
    counted: list[tuple[int, int]] = []

    def count(size: int, entries: int) -> None:
        counted.append((size, entries))
        if size > 5:
            raise ResourceExhausted("too large")

    async with saying(_message("count", 5, 2), _message("passed", PASSED)) as process:
        await process.passed(lambda: None, count)
    assert counted == [(5, 2), (PASSED["size"], PASSED["entries"])]
    async with saying(_message("count", 6, 2), _message("passed", PASSED)) as process:
        with pytest.raises(ResourceExhausted):
            await process.passed(lambda: None, count)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("refused", "InvalidArgument", "why", "CORRUPT_IMAGE"), InvalidArgument),
        (("refused", "ResourceExhausted", "why", "CORRUPT_IMAGE"), ResourceExhausted),
    ],
)
async def test_refusals_keep_class_message_and_reason(words: tuple[str, ...], expected: type[Exception]) -> None:
    async with saying(_message(*words)) as process:
        with pytest.raises(expected, match="why") as refused:
            await process.passed(lambda: None)
    assert isinstance(refused.value, InvalidArgument | ResourceExhausted)
    assert refused.value.reason == "CORRUPT_IMAGE"


async def test_an_error_of_the_system_stays_one() -> None:
    async with saying(_message("failed", 28, "No space left on device")) as process:
        with pytest.raises(OSError, match="No space left") as failed:
            await process.recorded(lambda: None)
    assert failed.value.errno == 28


@pytest.mark.parametrize("name", STRANGE)
async def test_what_it_never_says_is_its_failure(name: str) -> None:
    async with saying(json.dumps(STRANGE[name]).encode()) as process:
        with pytest.raises(Internal, match="the program that reads it failed"):
            await process.passed(lambda: None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(noise=st.binary(max_size=1000) | st.integers(1, 5000).map(lambda depth: b"[" * depth))
async def test_noise_is_its_failure(tmp_path: Path, noise: bytes) -> None:
    async with saying(noise) as process:
        with pytest.raises(Internal):
            await process.finish_directories(tmp_path)


async def test_a_line_without_end_is_not_read_to_it() -> None:
    async with saying(b'["' + b"x" * 100_000) as process:
        with pytest.raises(Internal):
            await process.passed(lambda: None)


@pytest.mark.parametrize("name", ["../outside", "/outside", "link", "link/below"])
async def test_directories_outside_the_layer_are_not_touched(tmp_path: Path, name: str) -> None:
    outside, layer = tmp_path / "outside", tmp_path / "layer"
    (outside / "below").mkdir(parents=True)
    layer.mkdir()
    (layer / "link").symlink_to(outside)
    before = [path.stat().st_mtime_ns for path in (outside, outside / "below")]
    async with saying(_message("time", name, 1, 0), _message("end")) as process:
        with pytest.raises(OSError, match=r"No such file|symbolic links"):
            await process.finish_directories(layer)
    assert [path.stat().st_mtime_ns for path in (outside, outside / "below")] == before


async def test_directories_get_their_times(tmp_path: Path) -> None:
    name = b"caf\xe9"
    directory = tmp_path / os.fsdecode(name)
    directory.mkdir()
    async with saying(_message("time", name.decode("latin-1"), 1, 5), _message("end")) as process:
        await process.finish_directories(tmp_path)
    assert directory.stat().st_mtime_ns == 1_000_000_005
