"""Ending whatever a failed or forgotten start left running, found by what it is rather than by a pid file."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection

from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.processes import command_line, read_process, send_signal


def kill_all(
    container_id: str, *, programs: Collection[str], cgroups: CgroupTree, cgroups_path: str, timeout: float
) -> None:
    """Kill the monitor, the runtime and the container's processes until none is left, for `timeout` seconds at most.

    The monitor and the runtime are those of `programs` with the id among their arguments: before the runtime has made
    the cgroup and the pid files there is no other trace of them. Blocks.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = _of_programs(container_id, programs)
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


def _of_programs(container_id: str, programs: Collection[str]) -> set[int]:
    found: set[int] = set()
    for name in os.listdir("/proc"):  # noqa: PTH208 - a thousand Path objects for nothing but their names
        if name.isdigit():
            arguments = command_line(int(name))
            if arguments and arguments[0] in programs and container_id in arguments:
                found.add(int(name))
    return found


def _kill(pids: Collection[int]) -> bool:
    """Kill those that live; False when none does."""
    killed = False
    for pid in pids:
        process = read_process(pid)
        if process is not None and send_signal(process, signal.SIGKILL):
            killed = True
    return killed
