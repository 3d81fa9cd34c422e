"""Pins: files on which network namespaces are bind-mounted, so that they live without a process.

A pin appears when its namespace is fully wired and not before: a pinned namespace is a finished one, unless it was made
ahead and is just being furnished (see wiring). The directory is a
shared mount of its own, as `ip netns` makes it (ip-netns(8)), so that a pin made later is seen, and one removed is let
go of, in mount namespaces that were copied from ours.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from executor_service.network import syscalls


@dataclass(frozen=True, slots=True)
class PinDirectory:
    """The pins of one instance. Names are tokens of our own making, never anything a caller chose. All calls block."""

    path: Path

    def prepare(self) -> bool:
        """Make the directory (0700) and its mount. Idempotent. Returns whether the mount is new. Raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = not self._is_mount_point()
        if new:
            syscalls.bind_mount(self.path, self.path)
        syscalls.make_shared(self.path)
        return new

    def remove(self) -> None:
        """Undo `prepare`; a directory that still holds something stays. Idempotent."""
        if self._is_mount_point():
            syscalls.detach_mount(self.path)
        if self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def of(self, token: str) -> Path:
        return self.path / token

    def pin(self, token: str) -> None:
        """Pin the calling thread's network namespace."""
        pin = self.of(token)
        os.close(os.open(pin, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))
        try:
            syscalls.bind_mount(syscalls.THREAD_NETWORK_NAMESPACE, pin)
        except BaseException:
            pin.unlink()
            raise

    def unpin(self, token: str) -> None:
        """Let go of the namespace; the kernel collects it when no process is left in it. Idempotent."""
        pin = self.of(token)
        try:
            syscalls.detach_mount(pin)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.EINVAL}:  # EINVAL: a file, but nothing mounted on it
                raise
        pin.unlink(missing_ok=True)

    def holds(self, token: str) -> bool:
        """Whether a namespace is pinned under this token: a pin's device is the kernel's nsfs."""
        try:
            return self.of(token).stat().st_dev == Path(syscalls.THREAD_NETWORK_NAMESPACE).stat().st_dev
        except FileNotFoundError:
            return False

    def tokens(self) -> set[str]:
        """Every file in the directory, pinned or not."""
        return {entry.name for entry in self.path.iterdir() if entry.is_file()}

    def _is_mount_point(self) -> bool:
        # A bind mount on itself shares the device of its parent, so os.path.ismount does not see it.
        own = str(self.path.resolve()).replace("\\", "\\134").replace(" ", "\\040")
        lines = Path("/proc/thread-self/mountinfo").read_text().splitlines()
        return any(line.split(" ")[4] == own for line in lines)
