"""One executor at a time for a run directory, proven by a lock that dies with the process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import FailedPrecondition
from executor_service.paths import Paths


@contextmanager
def instance_lock(paths: Paths) -> Iterator[None]:
    """Make the run directory (0755: the API service must reach the socket) and own it. Raises FailedPrecondition."""
    paths.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    if (owner := paths.run.lstat().st_uid) != os.geteuid():
        raise FailedPrecondition(
            f"the run directory {paths.run} belongs to user {owner}, who could plant anything in it; remove it, "
            "or give another --run-dir",
            reason="RUN_DIRECTORY_NOT_OURS",
        )
    paths.run.chmod(0o755)
    descriptor = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FailedPrecondition(
                f"an executor runs already in {paths.run} (process {_owner(descriptor)}); stop it, or give this one "
                "another --instance",
                reason="ALREADY_RUNNING",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _owner(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
