"""Change the size of a container's or an exec's terminal."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
import time
from pathlib import Path

from common.errors import FailedPrecondition, InvalidArgument, Unavailable
from executor_service.container import TerminalSize
from executor_service.node import Node
from executor_service.oci.conmon import ConmonFiles
from executor_service.operations.container_rules import id_violations
from executor_service.operations.exec_rules import size_violations

_TAKEN = 2.0  # seconds for the monitor to read what it was told; it takes less than a millisecond


async def container_resize(node: Node, *, container_id: str, size: TerminalSize) -> None:
    """Raises NotFound, and FailedPrecondition when it does not run or has no terminal."""
    if broken := [*id_violations(container_id), *size_violations(size)]:
        raise InvalidArgument(violations=broken)
    record = node.records.get(container_id)
    if record.spec is not None and not record.spec.terminal:
        raise _cannot(container_id, "has no terminal; create it with `tty`", reason="NO_TERMINAL")
    if node.supervisor.watched(container_id) is None:
        raise _cannot(container_id, f"does not run; it is {record.phase}", reason="NOT_RUNNING")
    control = ConmonFiles(bundle=node.paths.bundle(container_id)).control
    if not await asyncio.to_thread(_tell, control, size):
        raise _cannot(container_id, "has just ended", reason="NOT_RUNNING")


async def exec_resize(node: Node, *, exec_id: str, size: TerminalSize) -> None:
    """Raises FailedPrecondition when it does not run or has no terminal."""
    if broken := [*id_violations(exec_id, field="exec_id"), *size_violations(size)]:
        raise InvalidArgument(violations=broken)
    node.execs.get(exec_id).running.resize(size)


def _tell(control: Path, size: TerminalSize) -> bool:
    """False when no monitor listens. Blocks until the monitor has read it: of two messages that it reads at once it
    takes the first for both."""
    try:
        descriptor = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        _wait_until_read(descriptor)
        os.write(descriptor, f"1 {size.height} {size.width}\n".encode())
        _wait_until_read(descriptor)
    except BrokenPipeError:
        return False
    finally:
        os.close(descriptor)
    return True


def _wait_until_read(descriptor: int) -> None:
    deadline = time.monotonic() + _TAKEN
    waiting = array.array("i", [0])
    while True:
        fcntl.ioctl(descriptor, termios.FIONREAD, waiting)
        if not waiting[0]:
            return
        if time.monotonic() > deadline:
            raise Unavailable("the container's monitor does not answer; repeat the request", retry_after=1.0)
        time.sleep(0.0005)


def _cannot(container_id: str, why: str, *, reason: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"container {container_id!r} {why}", resource_type="container", resource_name=container_id, reason=reason
    )
