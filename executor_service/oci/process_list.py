"""The processes of a container, from /proc (proc_pid_stat(5), proc_pid_status(5)). No ps, and nothing of the container
is run. Blocks."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from executor_service.stats import ProcessInfo

_SECOND = 1_000_000_000  # nanoseconds
_MAX_COMMAND = 64 * 1024  # bytes shown of one process's arguments
_PROC = Path("/proc")


def list_processes(pids: Collection[int], *, shares_pids: bool, proc: Path = _PROC) -> list[ProcessInfo]:
    """Those that still live, in the order of their ids. `shares_pids`: the container has the node's process ids."""
    booted = _boot_time(proc)
    found = (_process(proc / str(pid), pid, booted=booted, shares_pids=shares_pids) for pid in sorted(pids))
    return [process for process in found if process is not None]


def _boot_time(proc: Path) -> int:
    """Seconds since the epoch."""
    lines = (proc / "stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)


def _process(directory: Path, pid: int, *, booted: int, shares_pids: bool) -> ProcessInfo | None:
    try:
        stat = (directory / "stat").read_bytes()
        status = (directory / "status").read_bytes()
        with (directory / "cmdline").open("rb") as file:
            arguments = file.read(_MAX_COMMAND)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may hold spaces and parentheses, so count from the last one: the state is field 3.
    name, fields = stat[stat.index(b"(") + 1 : stat.rindex(b")")], stat[stat.rindex(b")") + 2 :].split()
    words = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
    ids = [int(number) for number in words.get(b"NSpid", b"").split()]
    ticks = os.sysconf("SC_CLK_TCK")
    return ProcessInfo(
        pid=pid,
        container_pid=ids[-1] if len(ids) > 1 else pid if shares_pids else 0,
        parent_pid=int(fields[1]),
        uid=int(words[b"Uid"].split()[0]),
        state=fields[0].decode(),
        threads=int(fields[17]),
        started_at=booted * _SECOND + int(fields[19]) * _SECOND // ticks,
        cpu_time=(int(fields[11]) + int(fields[12])) * _SECOND // ticks,
        memory=int(fields[21]) * os.sysconf("SC_PAGE_SIZE"),
        command=_command(arguments) or (f"[{name.decode(errors='replace')}]",),
    )


def _command(arguments: bytes) -> tuple[str, ...]:
    if not arguments:
        return ()
    return tuple(argument.decode(errors="replace") for argument in arguments.removesuffix(b"\0").split(b"\0"))
