"""A network namespace of an engine's own, so that its bridge and firewall are not the host's, and a way to run in it.

`ip netns exec` would replace /sys and with it hide the cgroup mounts; nsenter(1) changes nothing but the namespace.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import processes

_COMMAND_TIMEOUT = 10.0  # seconds
_KILL_TIMEOUT = 10.0
_PROBE_INTERVAL = 0.05
_LOG_TAIL = 20  # lines

Daemon = tuple[subprocess.Popen[bytes], Path]  # and where its output goes
# In a mount namespace of its own, an engine's mounts end with its last process. What programs keep at fixed places of
# /run, and a daemon.json of the host that would change dockerd's defaults, are out of its sight.
_PRIVATE_MOUNTS = """\
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 1777 /run/lock
if [ -d /etc/docker ]; then mount -t tmpfs -o mode=755 tmpfs /etc/docker; fi
exec "$0" "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkNamespace:
    """`path` is the file the namespace is bound to, `inode` its identity. Daemons get `patience` seconds to end after
    SIGTERM."""

    path: Path
    inode: int
    patience: float = 10.0

    @contextlib.contextmanager
    def daemon(self, argv: Sequence[str], *, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """A program in this network namespace and a mount namespace of its own, its output appended to `log`. It has a
        session of its own, so that the terminal's Ctrl-C reaches the benchmark alone. The pid is the program's. At the
        end everything that runs in the network namespace is ended with it."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*self._enter, "sh", "-c", _PRIVATE_MOUNTS, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            self.end_processes()
            process.kill()  # only when it never got as far as the namespace
            process.wait(_KILL_TIMEOUT)

    @property
    def _enter(self) -> list[str]:
        return ["nsenter", f"--net={self.path}", "unshare", "--mount", "--propagation=private"]

    def processes(self) -> set[int]:
        """The engine's own processes; those of containers have network namespaces of their own and are left out."""
        return processes.in_network_namespace(self.inode)

    def end_processes(self) -> set[int]:
        """End everything that runs here and everything started from here, containers included: SIGTERM for those who
        clean up after themselves, then SIGKILL until nobody is left to start another. Returns the pids that survived
        even that."""
        members = self.processes()
        started = processes.descendants(members) - members
        # Containers first: a daemon told to stop waits for them.
        processes.end_all(started, signal_number=signal.SIGKILL, timeout=_KILL_TIMEOUT)
        processes.end_all(members, signal_number=signal.SIGTERM, timeout=self.patience)
        deadline = time.monotonic() + _KILL_TIMEOUT
        while (rest := self.processes()) and time.monotonic() < deadline:
            rest |= processes.descendants(rest)
            processes.end_all(rest, signal_number=signal.SIGKILL, timeout=deadline - time.monotonic())
        return rest


@contextlib.contextmanager
def network_namespace(path: Path, *, patience: float = 10.0) -> Iterator[NetworkNamespace]:
    """A new network namespace bound to the file `path`, loopback up; at the end all that runs in it is ended too."""
    path.touch(mode=0o600)
    try:
        _run(["unshare", f"--net={path}", "ip", "link", "set", "lo", "up"])
        try:
            namespace = NetworkNamespace(path=path, inode=path.stat().st_ino, patience=patience)
            try:
                yield namespace
            finally:
                if survivors := namespace.end_processes():
                    raise RuntimeError(f"processes {sorted(survivors)} in network namespace {path} cannot be killed")
        finally:
            _run(["umount", str(path)])
    finally:
        path.unlink()


def await_ready(probe: Callable[[], bool], *, daemons: Sequence[Daemon], timeout: float) -> None:
    """Ask `probe` until it says yes. RuntimeError with the end of a log when its daemon ends first, or with all of them
    after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not probe():
        for process, log in daemons:
            if process.poll() is not None:
                raise RuntimeError(f"{log.stem} ended with status {process.returncode}:\n{_end_of(log)}")
        if time.monotonic() > deadline:
            ends = "\n".join(f"{log.name}:\n{_end_of(log)}" for _, log in daemons)
            raise RuntimeError(f"not ready after {timeout:g} s; the ends of the logs:\n{ends}")
        time.sleep(_PROBE_INTERVAL)


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL:])


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.strip() or f'ended with status {done.returncode}'}")
