"""Output through both services: kept nowhere, a flood read while it lasts, restarts, binary, lines without an end."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import grpc
import pytest
from slipway.v1 import container_pb2
from slipway.v1 import container_service_pb2 as pb

from tests.fixtures.api import refused
from tests.fixtures.slipway import Slipway

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024


def log_config(driver: str = "json-file", **options: str) -> container_pb2.LogConfig:
    return container_pb2.LogConfig(type=driver, config={name.replace("_", "-"): each for name, each in options.items()})


def log_files(engine: Slipway, container: str) -> list[Path]:
    directory = Path(f"/var/lib/slipway-{engine.instance}")
    return [path for path in directory.glob(f"**/containers/{container}/logs/*") if path.is_file()]


def size_of(paths: Iterable[Path]) -> int:
    """Bytes; a file that was rotated away meanwhile has none."""
    size = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def inode_of(path: Path) -> int:
    """0 when it is not there: it is being rotated."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_ino
    return 0


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def test_output_that_is_kept_nowhere(engine: Slipway) -> None:
    container = await engine.run("sh", "-c", "seq 100000; echo done > /done", log_config=log_config("none"))
    assert (await engine.wait(container)).exit_code == 0
    assert log_files(engine, container) == []
    refusal = await refused(engine.logs(container))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LOGS_NOT_KEPT")
    shown = (await engine.inspect(container)).host_config.log_config
    assert (shown.type, dict(shown.config)) == ("none", {})
    await engine.remove(container)


@pytest.mark.timeout(300)
async def test_a_flood_is_bounded_on_disk_and_in_memory_and_a_read_of_it_ends(engine: Slipway, tmp_path: Path) -> None:
    """Each burst is on both sides of a rotation and waits for it, so how much is on disk does not depend on the
    machine."""
    # A burst has one rotation or two, never so many that the name comes to a file with the number of the first one.
    line, lines, bursts = "0123456789" * 4, 30_000, 20
    burst = lines * len(f"2026-01-01T00:00:00.000000000+00:00 stdout F {line}\n")
    os.mkfifo(tmp_path / "go")
    before = resident(engine.executor.pid)
    container = await engine.run(
        *("sh", "-c", f"while read -r _; do yes {line} | head -n {lines}; done < /out/go"),
        binds=[f"{tmp_path}:/out"],
        log_config=log_config(max_size="2m", max_file="3"),
    )
    log = Path(f"/var/lib/slipway-{engine.instance}/containers/{container}/logs/container.log")
    largest = 0
    with (tmp_path / "go").open("r+b", buffering=0) as go:  # for reading too, so that it opens at once
        for _ in range(bursts):
            written_to = inode_of(log)
            go.write(b"\n")
            while not await engine.logs(container, tail=1):
                await asyncio.sleep(0.02)
            while True:
                largest = max(largest, size_of(log_files(engine, container)))
                found = [record async for record in engine.log_lines(container, tail=1000)]
                assert 0 < len(found) <= 1001  # the last one may be half written
                assert {record.data for record in found[1:-1]} <= {f"{line}\n".encode()}
                if inode_of(log) not in (0, written_to):
                    break
    assert (await engine.wait(container)).exit_code == 0
    # A burst that was rotated before it ended leaves the rest of it to the next file, so each file holds at most two.
    assert largest < 5 * burst
    assert resident(engine.executor.pid) - before < 64 * MIB
    await engine.remove(container)


async def test_binary_and_lines_without_an_end_come_back_byte_for_byte(engine: Slipway) -> None:
    script = "head -c 3000000 /dev/zero | tr '\\0' x; head -c 100000 /dev/urandom | tee /copy; printf end"
    container = await engine.run("sh", "-c", script)
    assert (await engine.wait(container)).exit_code == 0
    call = engine.containers.CopyFromContainer(pb.CopyFromContainerRequest(container=container, path="/copy"))
    archive = io.BytesIO(b"".join([answer.chunk async for answer in call]))
    with tarfile.open(fileobj=archive) as tree:
        copied = tree.extractfile("copy")
        assert copied is not None
        copy = copied.read()
    written = await engine.logs(container)
    assert written[:3_000_000] == b"x" * 3_000_000
    assert written[3_000_000:-3] == copy
    assert written[-3:] == b"end"
    await engine.remove(container)


async def test_logs_go_on_over_a_restart_and_a_follower_ends_with_its_run(engine: Slipway) -> None:
    container = await engine.run("sh", "-c", "echo run; exec sleep 300")
    follower = asyncio.ensure_future(engine.logs(container, follow=True))
    while b"run" not in await engine.logs(container):
        await asyncio.sleep(0.02)
    await engine.containers.RestartContainer(pb.RestartContainerRequest(container=container, signal="KILL"), timeout=30)
    assert await follower == b"run\n"
    while (await engine.logs(container)).count(b"run") < 2:
        await asyncio.sleep(0.02)
    assert await engine.logs(container, tail=1) == b"run\n"
    await engine.remove(container)


def relays(container: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_bytes()
            if b"relay.py" in arguments and container.encode() in arguments:
                found.append(int(path.parent.name))
    return found


async def until(condition: Callable[[], object]) -> None:
    """Ends with the test's own timeout."""
    while not condition():
        await asyncio.sleep(0.02)


def waiting(pipe: int) -> bytes:
    """What can be read of it at once, perhaps nothing."""
    try:
        return os.read(pipe, MIB)
    except BlockingIOError:
        return b""


# The relay stands between the two, however busy the machine is, when it has passed the first line on.
_FLOOD_WHEN_TOLD = (
    "echo 1; until [ -e /out/go ]; do usleep 10000; done; seq 2 {lines}; echo done > /out/done; exec sleep 300"
)


async def test_a_disk_that_stands_still_does_not_hold_up_a_container_that_does_not_wait(
    engine: Slipway, tmp_path: Path
) -> None:
    lines = 200_000
    container = await engine.create(
        *("sh", "-c", _FLOOD_WHEN_TOLD.format(lines=lines)),
        binds=[f"{tmp_path}:/out"],
        log_config=log_config(mode="non-blocking", max_buffer_size="512k"),
    )
    # A pipe that nobody reads takes 64 KiB and no more, as a disk that hangs.
    log = Path(f"/var/lib/slipway-{engine.instance}/containers/{container}/logs/container.log")
    log.parent.mkdir(mode=0o700, parents=True)
    os.mkfifo(log)
    disk = os.open(log, os.O_RDWR | os.O_NONBLOCK)
    try:
        await engine.start(container)
        content = b""
        while not content.endswith(b"1\n"):
            content += waiting(disk)
            await asyncio.sleep(0.02)
        (tmp_path / "go").touch()
        await until((tmp_path / "done").exists)
        [relay] = relays(container)
        assert resident(relay) < 24 * MIB
        while not content.endswith(b" %d\n" % lines):
            content += waiting(disk)
    finally:
        os.close(disk)
    await engine.kill(container)
    await engine.wait(container)
    await until(lambda: not relays(container))
    log.unlink()
    log.write_bytes(content)
    records = [line async for line in engine.log_lines(container)]
    # What had begun to be written when the disk stood still lost its end.
    kept = [int(record.data) for record in records if record.data.endswith(b"\n")]
    assert kept[0] == 1
    assert kept[-1] == lines
    assert kept == sorted(kept)
    assert sum(record.dropped for record in records) == lines - len(kept) > 100_000
    await engine.remove(container)


async def test_a_container_that_does_not_wait_loses_nothing_to_a_disk_that_is_fast_enough(
    engine: Slipway, tmp_path: Path
) -> None:
    """Not when its files are changed, nor when the executor is killed meanwhile, nor what it wrote last."""
    script = """i=0; while [ $i -lt 20 ]; do
        seq $((i*500+1)) $((i*500+500)); usleep 20000; i=$((i+1))
        while [ $((i%5)) = 0 ] && [ ! -e /out/$i ]; do usleep 5000; done
    done"""
    container = await engine.run(
        *("sh", "-c", script),
        binds=[f"{tmp_path}:/out"],
        log_config=log_config(mode="non-blocking", max_size="100k", max_file="100"),
    )
    assert (await engine.inspect(container)).host_config.log_config.config["max-buffer-size"] == "1m"

    async def goes_on_after(rotations: int) -> None:
        """Each five rounds are more than a file may have, and wait for its rotation."""
        await until(lambda: len(log_files(engine, container)) > rotations)
        (tmp_path / f"{5 * rotations}").touch()

    await goes_on_after(1)
    await goes_on_after(2)
    await engine.executor.kill()
    [relay] = relays(container)
    await engine.executor.start()
    await engine.node_back()
    assert relays(container) == [relay]
    await goes_on_after(3)
    await goes_on_after(4)
    assert (await engine.wait(container)).exit_code == 0
    assert [int(line) for line in (await engine.logs(container)).split()] == list(range(1, 10_001))
    await until(lambda: not relays(container))
    await engine.remove(container)


async def test_a_relay_that_is_killed_holds_up_nobody(engine: Slipway, tmp_path: Path) -> None:
    container = await engine.run(
        *("sh", "-c", "until [ -e /out/go ]; do usleep 5000; done; seq 1 100000"),
        binds=[f"{tmp_path}:/out"],
        log_config=log_config(mode="non-blocking"),
    )
    [relay] = relays(container)
    os.kill(relay, signal.SIGKILL)
    (tmp_path / "go").touch()
    assert (await engine.wait(container)).exit_code == 0
    await engine.remove(container)
