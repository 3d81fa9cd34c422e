"""A small init as process 1: it forwards signals and reaps children (tini(1)), bound into the container read-only."""

from __future__ import annotations

import asyncio
import posixpath
import signal
from pathlib import Path

from common.errors import FailedPrecondition
from executor_service.container import ContainerSpec
from executor_service.oci.host import HostFacts
from executor_service.oci.mounts import Mount
from executor_service.oci.processes import read_process
from executor_service.oci.runtime import Process

_IN_DEV = "/dev/init"
_WITHOUT_DEV = "/.slipway-init"  # when /dev is somebody else's, where no file shall appear
_UNCAUGHT = {signal.SIGKILL, signal.SIGSTOP}
_PATIENCE = 5.0  # seconds for an init to begin, on a machine that is very busy


def init_args(spec: ContainerSpec) -> list[str]:
    """The words before the program's own; none without an init."""
    return [_target(spec), "--"] if spec.init else []


def init_mounts(spec: ContainerSpec, host: HostFacts) -> list[Mount]:
    """To be made after all others, so that none of them hides it. Raises FailedPrecondition when the node has none."""
    if not spec.init:
        return []
    if host.init is None:
        raise FailedPrecondition(
            "this node has no init for containers: install tini, or set host_config.init to false",
            reason="NO_INIT",
        )
    options = ["bind", "rprivate", "ro", "nosuid", "nodev"]
    return [{"destination": _target(spec), "type": "bind", "source": str(host.init), "options": options}]


async def hears(process: Process, number: int) -> None:
    """Until the init that this process is, or becomes, hears the signal; for five seconds at most. A namespace's first
    process never gets a signal that it has no handler for. An init blocks those that it forwards first of all, and then
    ignores SIGTTIN; what it blocks is not to be seen any more while it waits for it (sigtimedwait(2))."""
    if number in _UNCAUGHT:
        return
    try:
        async with asyncio.timeout(_PATIENCE):
            while read_process(process.pid) == process and not _ignores(process.pid, signal.SIGTTIN):
                await asyncio.sleep(0.002)
    except TimeoutError:
        return


def _ignores(pid: int, number: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    ignored = int(status.partition("\nSigIgn:\t")[2].split("\n", 1)[0], 16)  # proc_pid_status(5)
    return bool(ignored >> number - 1 & 1)


def _target(spec: ContainerSpec) -> str:
    taken = any(posixpath.normpath(mount.target) == "/dev" for mount in spec.mounts)
    return _WITHOUT_DEV if taken else _IN_DEV
