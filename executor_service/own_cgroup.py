"""A cgroup of the executor's own, for where it runs in a container itself.

Monitors, the relays of logs and the guard of the lease outlive the executor, and are born in its cgroup. Whoever ends a
container kills all that is in its cgroup, so there the executor goes elsewhere before it starts anything. systemd needs
none of this: it is told to end the service's process alone (systemd.kill(5), KillMode).
"""

from __future__ import annotations

from pathlib import Path

import structlog

from common.errors import FailedPrecondition
from executor_service.oci.cgroups import CgroupTree

_log = structlog.get_logger(__name__)

_CPUSET = ("cpuset.cpus", "cpuset.mems")
_REMOVED_WITHIN = 5.0  # seconds


def enter_own_cgroup(path: str) -> None:
    """In every hierarchy there is. Raises FailedPrecondition when that is refused."""
    for root in CgroupTree.probe().hierarchies:
        try:
            _enter(root / path.lstrip("/"))
        except OSError as error:
            raise FailedPrecondition(
                f"own_cgroup {path!r}: the executor cannot enter it below {root}: {error.strerror}; "
                f"mount {root} writable for it",
                reason="OWN_CGROUP_REFUSED",
            ) from error
    _log.info("in a cgroup of its own", cgroup=path)


def remove_own_cgroup(path: str) -> None:
    """When the executor and all that outlived it have ended. Idempotent. Raises OSError when something has not."""
    CgroupTree.probe().remove(path, timeout=_REMOVED_WITHIN)


def _enter(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in _CPUSET:
        # cpuset(7): a new one of v1 has none, and takes no process before it has some.
        setting = directory / name
        if (directory / "cgroup.clone_children").exists() and setting.exists() and not setting.read_text().strip():
            setting.write_text((directory.parent / name).read_text())
    (directory / "cgroup.procs").write_text("0")
