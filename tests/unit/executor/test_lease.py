"""The node's lease: what prolongs it, what does not, and the guard that enforces it without the executor."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.errors import InvalidArgument, Unavailable
from executor_service import lease as lease_module
from executor_service import lease_guard
from executor_service.lease import Lease, end_guard

BOX, OTHER = "a" * 64, "b" * 64
PATIENCE = 60.0


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Path]:
    yield tmp_path / "lease"
    end_guard(tmp_path / "lease")


class Group:
    """A cgroup as the guard sees it, with a process in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    async def occupy(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec("sleep", "60")
        (self.path / "cgroup.procs").write_text(f"{process.pid}\n")
        return process


async def renewed(lease: Lease, ttl: float) -> str:
    return await lease.renew(await lease.renew("", ttl=ttl), ttl=ttl)


async def test_only_an_answered_word_prolongs_it(directory: Path) -> None:
    lease = await Lease.open(directory, boot_id="boot")
    word = await lease.renew("", ttl=30)
    assert not lease.in_force
    assert await lease.renew(word, ttl=30) != word
    assert lease.in_force


async def test_it_runs_from_when_the_word_was_given(directory: Path) -> None:
    lease = await Lease.open(directory, boot_id="boot")
    word = await lease.renew("", ttl=0.1)
    await asyncio.sleep(0.15)
    later = await lease.renew(word, ttl=0.1)  # a renewal that was on its way for too long
    assert not lease.in_force
    await lease.renew(later, ttl=30)
    await lease.renew(word, ttl=1)  # the late one again: it takes nothing away
    assert lease.in_force


@pytest.mark.parametrize("word", ["boot x", "boot 99999999999999999999", "boot -1", f"boot {2**62}"])
async def test_words_that_were_never_given(directory: Path, word: str) -> None:
    lease = await Lease.open(directory, boot_id="boot")
    with pytest.raises(InvalidArgument):
        await lease.renew(word, ttl=30)
    assert not lease.in_force


async def test_a_word_of_before_the_last_boot_proves_nothing(directory: Path) -> None:
    lease = await Lease.open(directory, boot_id="boot")
    await lease.renew(f"earlier {time.clock_gettime_ns(time.CLOCK_BOOTTIME)}", ttl=30)
    assert not lease.in_force


@pytest.mark.parametrize("ttl", [0, -1, 3601])
async def test_times_that_are_none(directory: Path, ttl: float) -> None:
    lease = await Lease.open(directory, boot_id="boot")
    with pytest.raises(InvalidArgument):
        await lease.renew("", ttl=ttl)


async def test_nothing_begins_without_it(directory: Path) -> None:
    lease = await Lease.open(directory, boot_id="boot")
    with pytest.raises(Unavailable) as caught:
        await lease.enter(BOX, [])
    assert caught.value.reason == "LEASE_OVER"
    waiting = asyncio.create_task(lease.until_in_force())
    await renewed(lease, 30)
    await asyncio.wait_for(waiting, PATIENCE)
    await lease.enter(BOX, [])


async def test_the_guard_kills_what_runs_when_it_is_over(directory: Path, tmp_path: Path) -> None:
    lease = await Lease.open(directory, boot_id="boot")
    group, other = Group(tmp_path / "group"), Group(tmp_path / "other")
    process, bystander = await group.occupy(), await other.occupy()
    await renewed(lease, 4)
    await lease.enter(BOX, [group.path])
    assert process.returncode is None
    assert not lease.ended(BOX)
    assert await asyncio.wait_for(process.wait(), PATIENCE) == -signal.SIGKILL
    assert not lease.in_force
    assert lease.ended(BOX)
    assert bystander.returncode is None
    bystander.kill()
    await bystander.wait()
    await lease.leave(BOX)
    assert not lease.ended(BOX)


async def test_a_renewal_keeps_it_running(directory: Path, tmp_path: Path) -> None:
    lease = await Lease.open(directory, boot_id="boot")
    group = Group(tmp_path / "group")
    process = await group.occupy()
    word = await renewed(lease, 4.0)
    await lease.enter(BOX, [group.path])
    for _ in range(5):
        await asyncio.sleep(1)
        word = await lease.renew(word, ttl=4.0)
    assert process.returncode is None
    assert await asyncio.wait_for(process.wait(), PATIENCE) == -signal.SIGKILL


async def test_of_two_renewals_at_once_the_later_deadline_is_on_file(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever is written first."""
    write, begun, go_on = lease_module._write, threading.Event(), threading.Event()

    def slow_at_first(path: Path, text: str) -> None:
        if not begun.is_set():
            begun.set()
            go_on.wait(PATIENCE)
        write(path, text)

    lease = await Lease.open(directory, boot_id="boot")
    word = await lease.renew("", ttl=30)
    monkeypatch.setattr(lease_module, "_write", slow_at_first)
    first = asyncio.create_task(lease.renew(word, ttl=30))
    await asyncio.to_thread(begun.wait, PATIENCE)
    second = asyncio.create_task(lease.renew(word, ttl=300))
    await asyncio.wait([second], timeout=0.5)
    go_on.set()
    await asyncio.gather(first, second)
    given = int(word.split()[1])
    assert lease_guard.deadline(directory) == lease._deadline == given + 300 * 10**9


async def test_a_guard_that_was_killed_is_replaced_at_the_next_renewal(directory: Path, tmp_path: Path) -> None:
    lease = await Lease.open(directory, boot_id="boot")
    group = Group(tmp_path / "group")
    process = await group.occupy()
    word = await renewed(lease, 30)
    await lease.enter(BOX, [group.path])
    with (directory / "guard").open() as guard:
        os.kill(int(guard.read()), signal.SIGKILL)
        await asyncio.to_thread(fcntl.flock, guard, fcntl.LOCK_EX)  # until it is gone
    await lease.renew(word, ttl=31)
    assert process.returncode is None
    os.kill(int((directory / "guard").read_text()), 0)
    process.kill()
    await process.wait()


async def test_a_new_executor_knows_what_was_promised(directory: Path, tmp_path: Path) -> None:
    before = await Lease.open(directory, boot_id="boot")
    await renewed(before, 30)
    await before.enter(BOX, [])
    after = await Lease.open(directory, boot_id="boot")
    assert after.in_force
    await after.enter(OTHER, [])
    assert sorted(path.name for path in (directory / "runs").iterdir()) == [BOX, OTHER]
    await after.leave(BOX)
    assert [path.name for path in (directory / "runs").iterdir()] == [OTHER]
