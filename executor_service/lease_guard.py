"""Ends the containers that may run under the node's lease only, when that is over, whatever has become of the executor.

It is a process of its own, because an executor that was killed or frozen ends nobody. It is started by its path, needs
nothing but the standard library, returns when it is at work, and outlives the executor. Its one argument is the lease's
directory:

    deadline      when the lease is over, in nanoseconds of CLOCK_BOOTTIME, which goes on while the machine sleeps
    runs/ID       a container that runs under the lease: the directories of its cgroup, a line each
    ended/ID      written here before such a container is killed
    door          locked (flock(2)) by the executor while it adds a run, by the guard while it leaves
    guard         locked by the guard as long as it lives
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

_LOOK = 0.5  # seconds between looks while the lease is in force and its end is further away
_ENFORCE = 0.02  # seconds between looks when it is over
_IDLE = 5.0  # seconds without a run until it leaves


def main(directory: Path) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with (directory / "guard").open("w") as own:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # there is one
        pid = os.fork()  # the lock is the child's, too
        # By both: it is there when either goes on, whoever is killed meanwhile.
        os.pwrite(own.fileno(), f"{pid or os.getpid()}\n".encode(), 0)
        if pid:
            os._exit(0)
        idle_since = time.monotonic()
        while directory.is_dir():
            runs = _names(directory / "runs")
            if runs:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > _IDLE and _left(directory):
                return 0
            left = deadline(directory) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if left <= 0:
                for name in runs:
                    enforce(directory, name)
            time.sleep(min(max(left / 1e9, _ENFORCE), _LOOK) if runs else _LOOK)
    return 0


def deadline(directory: Path) -> int:
    """0: none was ever in force."""
    try:
        return int((directory / "deadline").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def enforce(directory: Path, name: str) -> None:
    """Mark it and kill what is in its cgroup. Nothing there: nothing happens."""
    try:
        groups = [Path(line) for line in (directory / "runs" / name).read_text().splitlines()]
    except FileNotFoundError:
        return
    pids = {pid for group in groups for pid in _pids(group)}
    if not pids:
        return
    with contextlib.suppress(FileNotFoundError):  # the executor is being reset
        (directory / "ended" / name).touch()
    for group in groups:
        _write(group / "cgroup.kill", "1")
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for group in groups:  # of a v1 freezer not even SIGKILL gets out
        _write(group / "freezer.state", "THAWED")
        _write(group / "cgroup.freeze", "0")


def _pids(group: Path) -> set[int]:
    found: set[int] = set()
    for path, _, files in os.walk(group):
        if "cgroup.procs" in files:
            with contextlib.suppress(OSError):
                found.update(map(int, (Path(path) / "cgroup.procs").read_text().split()))
    return found - {0}


def _write(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        if path.exists():
            path.write_text(text)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if not name.startswith("."))  # noqa: PTH208 - names only
    except FileNotFoundError:
        return []


def _left(directory: Path) -> bool:
    """Whether it may go: nobody is adding a run, and there is none."""
    try:
        with (directory / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _names(directory / "runs"):
                return False
            (directory / "guard").unlink(missing_ok=True)
            return True
    except OSError:
        return not directory.is_dir()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
