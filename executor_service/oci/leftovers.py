"""Ending whatever a failed or forgotten start left running, found by what it is rather than by a pid file."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Sequence

from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.processes import command_line, read_process, send_signal, session_of


def kill_all(
    container_id: str, *, programs: Collection[Sequence[str]], cgroups: CgroupTree, cgroups_path: str, timeout: float
) -> None:
    """Kill the monitor, the runtime and the container's processes until none is left, for `timeout` seconds at most.

    The monitor and the runtime are those whose command line begins as one of `programs` and has the id in it, and what
    runs in their sessions: before the runtime has made the cgroup and the pid files there is no other trace of them.
    Blocks.
    """
    deadline = time.monotonic() + timeout
    sessions: set[int] = set()
    while time.monotonic() < deadline:
        found = _started_for(container_id, programs, sessions)
        if cgroups_path:
            found |= cgroups.processes(cgroups_path)
        if not _kill(found):
            return
        time.sleep(0.002)


def empty_cgroup(cgroups: CgroupTree, cgroups_path: str, *, timeout: float) -> None:
    """Kill what is in the cgroup and remove it. Blocks up to `timeout` seconds, then raises OSError (EBUSY)."""
    if not cgroups.directories(cgroups_path):
        return
    if found := cgroups.processes(cgroups_path):
        cgroups.thaw(cgroups_path)
        _kill(found)
    cgroups.remove(cgroups_path, timeout=timeout)


def _started_for(container_id: str, programs: Collection[Sequence[str]], sessions: set[int]) -> set[int]:
    """Pids of the programs started for the container, and of whatever else is in a session that one of them leads;
    `sessions` remembers those whose leader has been killed already."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - thousands of names, no paths
    found = set()
    for pid in pids:
        arguments = command_line(pid)
        if container_id in arguments and any(arguments[: len(begin)] == list(begin) for begin in programs):
            found.add(pid)
            if session_of(pid) == pid:
                sessions.add(pid)
    return found | {pid for pid in pids if session_of(pid) in sessions}


def _kill(pids: Collection[int]) -> bool:
    """Kill those that live; False when none does."""
    killed = False
    for pid in pids:
        process = read_process(pid)
        if process is not None and send_signal(process, signal.SIGKILL):
            killed = True
    return killed
