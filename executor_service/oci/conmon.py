"""conmon (conmon(8)): its command line, its files in a bundle, and the spawning of one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from common.errors import Internal
from executor_service.oci.runtime import Bundle
from executor_service.oci.runtimes import RuntimeBinary
from executor_service.run import MINIMAL_ENVIRONMENT

_MAX_SYNC_MESSAGE = 1024 * 1024  # bytes; runtimes write a line or two


@dataclass(frozen=True, slots=True, kw_only=True)
class ConmonFiles:
    """The files of conmon in a bundle's directory. Everything but `config` is conmon's and the runtime's."""

    bundle: Path

    @property
    def config(self) -> Path:
        return self.bundle / "config.json"

    @property
    def container_pid(self) -> Path:
        return self.bundle / "container.pid"

    @property
    def monitor_pid(self) -> Path:
        return self.bundle / "conmon.pid"

    @property
    def exit_directory(self) -> Path:
        return self.bundle / "exit"

    @property
    def persist_directory(self) -> Path:
        """Where conmon leaves an empty file `oom` when the kernel killed something in the container."""
        return self.bundle / "persist"

    @property
    def control(self) -> Path:
        """The fifo that takes `1 HEIGHT WIDTH` (resize) and `2 0 0` (reopen the log)."""
        return self.bundle / "ctl"

    @property
    def diagnostics(self) -> Path:
        return self.bundle / "conmon.log"

    @property
    def log_fifo(self) -> Path:
        """What conmon writes its log to when a relay passes it on."""
        return self.bundle / "log.fifo"

    @property
    def relay_control(self) -> Path:
        """The fifo at which the relay takes the request for a new file."""
        return self.bundle / "relay.ctl"

    @property
    def relay_pid(self) -> Path:
        return self.bundle / "relay.pid"

    def prepare(self) -> None:
        """Make the directories, and remove what an earlier run left. Blocks."""
        self.remove()
        for directory in (self.exit_directory, self.persist_directory):
            directory.mkdir(mode=0o700, exist_ok=True)

    def remove(self) -> None:
        """Remove all of conmon's files, and nothing else. Blocks."""
        for directory in (self.exit_directory, self.persist_directory):
            if directory.is_dir():
                for entry in directory.iterdir():
                    entry.unlink(missing_ok=True)
                directory.rmdir()
        # runc writes its pid file under the dotted name first, and may be killed in between.
        names = ("container.pid", ".container.pid", "conmon.pid", "ctl", "winsz", "attach", "oom", "conmon.log")
        for name in (*names, "log.fifo", "relay.ctl", "relay.pid"):
            (self.bundle / name).unlink(missing_ok=True)


def conmon_argv(conmon: Path, bundle: Bundle, *, runtime: RuntimeBinary, state_root: Path) -> list[str]:
    files = ConmonFiles(bundle=bundle.directory)
    argv = [str(conmon), "--api-version", "1", "--cid", bundle.container_id, "--cuuid", bundle.container_id]
    argv += ["--bundle", str(bundle.directory), "--runtime", str(runtime.path), "--runtime-arg", f"--root={state_root}"]
    argv += ["--container-pidfile", str(files.container_pid), "--conmon-pidfile", str(files.monitor_pid)]
    argv += ["--exit-dir", str(files.exit_directory), "--persist-dir", str(files.persist_directory)]
    log = files.log_fifo if bundle.log_buffer else bundle.log_path
    kept = f"k8s-file:{log}" if bundle.keeps_log else "none"
    argv += ["--log-path", kept, "--log-level", "error"]
    # The attach socket lies in the bundle, reached through a descriptor, so no length of a path is too much. An fsync
    # of the log at the end of every container would be paid by whoever waits for it.
    argv += ["--full-attach", "--no-sync-log"]
    if bundle.log_size_limit and bundle.keeps_log and not bundle.log_buffer:
        argv += ["--log-size-max", str(bundle.log_size_limit)]
    if bundle.terminal:
        argv.append("--terminal")
    if bundle.stdin:
        argv.append("--stdin")
        if not bundle.stdin_once:
            argv.append("--leave-stdin-open")
    return argv


def spawn(argv: list[str], *, bundle: Path, sync_write: int) -> int:
    """Start conmon and return the status of its first process, which ends once it has forked the monitor. Blocks (3
    ms).

    The monitor leads a session of its own and keeps no descriptor of ours but the sync pipe, so it outlives us.
    """
    diagnostics = os.open(
        ConmonFiles(bundle=bundle).diagnostics, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=diagnostics,
            # conmon leaves an `oom` file in its working directory too.
            cwd=bundle,
            env={**MINIMAL_ENVIRONMENT, "_OCI_SYNCPIPE": str(sync_write)},
            pass_fds=(sync_write,),
            start_new_session=True,
        )
    finally:
        os.close(diagnostics)
    try:
        return process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


async def read_sync(descriptor: int) -> bytes:
    """Read conmon's one message, up to its newline or the end of file."""
    loop = asyncio.get_running_loop()
    os.set_blocking(descriptor, False)
    readable = asyncio.Event()
    content = b""
    loop.add_reader(descriptor, readable.set)
    try:
        while not content.endswith(b"\n") and len(content) < _MAX_SYNC_MESSAGE:
            await readable.wait()
            readable.clear()
            try:
                chunk = os.read(descriptor, 65536)
            except BlockingIOError:
                continue
            if not chunk:
                break
            content += chunk
    finally:
        loop.remove_reader(descriptor)
    return content


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncMessage:
    """`pid` of the container's first process, or the runtime's `error`."""

    pid: int | None
    error: str = ""


def parse_sync(content: bytes, *, diagnostics: Path) -> SyncMessage:
    """`{"data": PID}`, or `{"data": -N, "message": TEXT}`; nothing when conmon itself failed, whose log tells why."""
    if not content.strip():
        said = diagnostics.read_text(errors="replace").strip() if diagnostics.exists() else ""
        return SyncMessage(pid=None, error=said or "conmon ended before it could start the runtime")
    try:
        message = json.loads(content.decode(errors="replace"), strict=False)
        pid = int(message["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise Internal(f"conmon's answer is not understood: {content[:200]!r}") from error
    return SyncMessage(pid=pid) if pid > 0 else SyncMessage(pid=None, error=str(message.get("message", "")))
