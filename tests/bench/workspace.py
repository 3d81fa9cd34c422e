"""The directory everything of one run lives in, and the proof at its end that nothing is left anywhere."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import cgroups

_PREFIX = "slipway-bench-"


class LeftoverError(Exception):
    """The benchmark left something on the machine; the message lists it."""


@contextlib.contextmanager
def workspace(parent: Path, *, cgroup_names: Sequence[str]) -> Iterator[Path]:
    """A new directory below `parent`, deleted at the end. LeftoverError when mounts, cgroups or files remain then."""
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    directory.chmod(0o711)  # for services that run without privileges
    try:
        yield directory
    finally:
        if not _mounts_below(directory):  # deleting through a mount that should not be there would delete what it shows
            shutil.rmtree(directory, ignore_errors=True)
        if found := leftovers(directory, cgroup_names=cgroup_names):
            raise LeftoverError("left behind: " + ", ".join(found))


def leftovers(directory: Path, *, cgroup_names: Sequence[str]) -> list[str]:
    """What still exists of a run that had this directory and these cgroups. Processes are proven by their network
    namespace, at whose end nobody is left in it."""
    return [
        *(f"mount {path}" for path in _mounts_below(directory)),
        *(f"cgroup {path}" for name in cgroup_names for path in cgroups.named(name)),
        *([f"directory {directory}"] if directory.exists() else []),
    ]


def _mounts_below(directory: Path) -> list[str]:
    # Field 5 of mountinfo is the mount point, blanks escaped; proc(5).
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if Path(point.replace("\\040", " ")).is_relative_to(directory)]
