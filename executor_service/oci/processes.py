"""Processes by pid and start time, watched and signalled through pidfds (pidfd_open(2)): a reused pid is never hit."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path

from executor_service.oci.runtime import Process


def read_process(pid: int) -> Process | None:
    """The living process with this pid; None when there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc_pid_stat(5): the name may hold spaces and parentheses, so count from the last one. State is field 3.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else Process(pid=pid, start_time=int(fields[19]))


def open_process(process: Process) -> int | None:
    """A pidfd for the process; None when it has ended. Raises OSError when none is to be had (EMFILE), which says
    nothing of the process."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # the number is a thread's by now
            return None
        raise
    # Compared after opening: from here on the descriptor means this very process.
    try:
        same = read_process(process.pid) == process
    except BaseException:
        os.close(descriptor)
        raise
    if not same:
        os.close(descriptor)
        return None
    return descriptor


def send_signal(process: Process, number: int) -> bool:
    """Signal the process; False when it has ended."""
    descriptor = open_process(process)
    if descriptor is None:
        return False
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


async def wait_ended(process: Process) -> None:
    """Return when the process has ended, whosever child it is. Costs one descriptor, and no thread. Cancel-safe."""
    descriptor = open_process(process)
    if descriptor is None:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def command_line(pid: int) -> list[str]:
    """The arguments of a process; empty when it has ended."""
    try:
        return [os.fsdecode(argument) for argument in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    except (FileNotFoundError, ProcessLookupError):
        return []


def cgroup_paths(pid: int) -> set[str]:
    """The cgroups of a process, as paths below each hierarchy's root; empty when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="surrogateescape").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return set()
    return {line.split(":", 2)[2] for line in lines}


def parent_of(pid: int) -> int:
    """The pid of the parent; 0 when the process has ended."""
    return _stat_field(pid, 4)


def session_of(pid: int) -> int:
    """The session of a process, which is the pid of its leader; 0 when the process has ended."""
    return _stat_field(pid, 6)


def _stat_field(pid: int, number: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[number - 3])


def read_pid_file(path: Path) -> int | None:
    """The pid written in the file; None when there is no such file yet, or it is not one number."""
    try:
        text = path.read_text().strip()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
