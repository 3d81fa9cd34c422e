"""Processes as /proc shows them: who lives in a network namespace, who descends from whom, and how to end them by pid.

Source: proc(5), pidfd_open(2).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

_PROC = Path("/proc")


def all_pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def in_network_namespace(inode: int) -> set[int]:
    """Pids whose network namespace has this inode; a process that ends meanwhile is left out."""
    link = Path(f"net:[{inode}]")
    found = set()
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if (_PROC / str(pid) / "ns" / "net").readlink() == link:
                found.add(pid)
    return found


def descendants(ancestors: Iterable[int]) -> set[int]:
    """Children, grandchildren and so on of these pids, themselves left out."""
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        with contextlib.suppress(OSError):
            children.setdefault(_parent(pid), []).append(pid)
    found: set[int] = set()
    queue = list(ancestors)
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def name_of(pid: int) -> str:
    """The kernel's name of the program (`comm`), at most 15 characters."""
    return (_PROC / str(pid) / "comm").read_text().strip()


def processor_time(pids: Iterable[int]) -> float:
    """Seconds that these processes have run, in user and in kernel mode."""
    ticks = 0
    for pid in pids:
        user, system = _after_name(pid)[11:13]
        ticks += int(user) + int(system)
    return ticks / os.sysconf("SC_CLK_TCK")


def end_all(pids: Iterable[int], *, signal_number: signal.Signals, timeout: float) -> set[int]:
    """Signal these processes and wait up to `timeout` seconds for all of them to end; returns those that did not."""
    alive: dict[int, int] = {}
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                alive[os.pidfd_open(pid)] = pid
        for descriptor in alive:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal_number)
        return _still_alive(alive, timeout=timeout)
    finally:
        for descriptor in alive:
            os.close(descriptor)


def _still_alive(alive: dict[int, int], *, timeout: float) -> set[int]:
    deadline = time.monotonic() + timeout
    waiting = dict(alive)
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting and (left := deadline - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            del waiting[descriptor]
    return set(waiting.values())


def _parent(pid: int) -> int:
    return int(_after_name(pid)[1])


def _after_name(pid: int) -> list[str]:
    """The fields of proc_pid_stat(5) from the third on."""
    # The name in parentheses may hold blanks and parentheses itself.
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
