"""What a bundle's directory tells about its container: which processes run, how it ended, which cgroup it has.

Everything is checked against /proc, because a pid file outlives its process and pids are used again.
"""

from __future__ import annotations

import json
from pathlib import Path

from executor_service.container import CONTAINER_ID
from executor_service.oci.conmon import ConmonFiles
from executor_service.oci.processes import cgroup_paths, command_line, parent_of, read_pid_file, read_process
from executor_service.oci.runtime import Bundle, CreatedProcess, Exit, Process

_NO_PROCESS = Process(pid=0, start_time=0)


def find_created(bundle: Path) -> CreatedProcess | None:
    """The container that runs for this bundle; None when its first process is gone. A monitor that is gone has pid
    0: conmon ends when nobody reads its answer, and leaves a created process that waits for its start for ever."""
    pid = read_pid_file(ConmonFiles(bundle=bundle).container_pid)
    container = read_process(pid) if pid else None
    if container is None:
        return None
    monitor = find_monitor(bundle)
    cgroup = recorded_cgroup(bundle)
    in_cgroup = bool(cgroup) and cgroup in cgroup_paths(container.pid)
    if not in_cgroup and not (monitor and parent_of(container.pid) == monitor.pid):
        return None  # the pid now belongs to another process
    return CreatedProcess(container=container, monitor=monitor or _NO_PROCESS)


def find_monitor(bundle: Path) -> Process | None:
    """The living conmon of this bundle."""
    pid = read_pid_file(ConmonFiles(bundle=bundle).monitor_pid)
    process = read_process(pid) if pid else None
    return process if process and str(bundle) in command_line(process.pid) else None


def recorded_cgroup(bundle: Path, *, container_id: str = "") -> str:
    """The cgroup path in the bundle's configuration; empty when that cannot be read, or is not a container's (the given
    one's)."""
    try:
        path = str(json.loads(ConmonFiles(bundle=bundle).config.read_bytes())["linux"]["cgroupsPath"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    last = path.rpartition("/")[2]
    return path if CONTAINER_ID.fullmatch(last) and container_id in ("", last) else ""


def read_exit(files: ConmonFiles) -> Exit | None:
    try:
        found = next(files.exit_directory.iterdir(), None)
        if found is None:
            return None
        code, finished_at = int(found.read_text()), found.stat().st_mtime
    except (OSError, ValueError):
        return None
    return Exit(code=code if code >= 0 else None, oom_killed=was_oom_killed(files), finished_at=finished_at)


def was_oom_killed(files: ConmonFiles) -> bool:
    return (files.persist_directory / "oom").exists()


def command_of(bundle: Bundle) -> str:
    process = bundle.config.get("process")
    args = process.get("args") if isinstance(process, dict) else None
    return str(args[0]) if args else ""
