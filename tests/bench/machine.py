"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.bench.engine import COMMAND, IMAGE


def machine(directory: Path) -> Mapping[str, str]:
    """Facts of this machine and of the file system that holds `directory`."""
    return {
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "kernel": platform.release(),
        "processors": f"{os.cpu_count()} x {_first_field(Path('/proc/cpuinfo'), 'model name')}",
        "memory": f"{int(_first_field(Path('/proc/meminfo'), 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "cgroups": _cgroup_layout(),
        "file system": _output("findmnt", "--noheadings", "--output=FSTYPE", f"--target={directory}"),
        "python": platform.python_version(),
        "image": f"{IMAGE}, running {' '.join(COMMAND)}",
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
    }


def program_version(program: str) -> str:
    """The number in the first line of `program --version`."""
    words = _output(program, "--version").partition("\n")[0].split()
    return next((word for word in words if word[0].isdigit()), "unknown")


def load() -> str:
    """Other work on the machine, as the load average of the last minute: measured before the benchmark begins."""
    return f"{os.getloadavg()[0]:.2f}"


def _cgroup_layout() -> str:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return "v2"
    return "v1 hybrid" if (root / "unified" / "cgroup.controllers").exists() else "v1"


def _first_field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _output(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
