"""The size of a container's terminal, which its monitor holds: told over the control pipe, conmon(8)."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
import time
from pathlib import Path

from common.errors import Unavailable
from executor_service.container import TerminalSize
from executor_service.oci.conmon import ConmonFiles

_TAKEN = 2.0  # seconds for the monitor to read what it was told; it takes less than a millisecond


async def set_terminal_size(bundle: Path, size: TerminalSize) -> bool:
    """Return when the monitor has read it; False when none listens. Raises Unavailable."""
    return await asyncio.to_thread(_tell, ConmonFiles(bundle=bundle).control, size)


def _tell(control: Path, size: TerminalSize) -> bool:
    """Blocks until the monitor has read it: of two messages that it reads at once it takes the first for both."""
    try:
        descriptor = os.open(control, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # For the same reason one after the other; each holds it for twice the patience at most.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
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
