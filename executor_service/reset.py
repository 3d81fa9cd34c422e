"""`reset`: kill and remove every container of an instance, and everything else it has on this host.

The work is done by a child in the mount namespace of the executor; what pins that namespace goes last, from outside.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

import structlog

from common.errors import Internal
from executor_service.config import ResetSettings
from executor_service.instance_lock import instance_lock
from executor_service.oci.mount_namespace import remove_runtime_mount_namespace
from executor_service.own_cgroup import remove_own_cgroup

_log = structlog.get_logger(__name__)

_TIMEOUT = 600  # seconds; a thousand containers


def reset(settings: ResetSettings, *, inside: Sequence[str]) -> None:
    """`inside` is the command that does it. Raises FailedPrecondition while an executor runs, Internal when something
    stays."""
    with instance_lock(settings.paths):
        pass
    if subprocess.run(inside, timeout=_TIMEOUT, check=False).returncode != 0:
        raise Internal(f"not everything of instance {settings.instance!r} could be removed; the lines above say what")
    with instance_lock(settings.paths):
        remove_runtime_mount_namespace(settings.run_dir)
        shutil.rmtree(settings.run_dir)
        if settings.own_cgroup:
            remove_own_cgroup(settings.own_cgroup)
    _log.info("reset", instance=settings.instance, images="deleted" if settings.images else "kept")
