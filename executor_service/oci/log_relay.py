"""The relay of a container that does not wait for its log (`executor_service.logs.relay`): started beside conmon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StartFailed
from executor_service.logs import relay
from executor_service.oci.conmon import ConmonFiles
from executor_service.oci.processes import command_line, read_pid_file, read_process
from executor_service.oci.runtime import Bundle, Process
from executor_service.run import MINIMAL_ENVIRONMENT

# How its command line begins.
RELAY = (sys.executable, "-I", "-S", relay.__file__)
_STARTED_WITHIN = 10  # seconds; it takes some 20 ms


@contextmanager
def relayed(bundle: Bundle) -> Iterator[None]:
    """conmon's log can be written to from the beginning of the block on; at its end the relay runs by itself. A bundle
    whose container waits for its log has none. Blocks; raises StartFailed when it cannot be started."""
    if not bundle.log_buffer:
        yield
        return
    files = ConmonFiles(bundle=bundle.directory)
    os.mkfifo(files.log_fifo, 0o600)
    # Open already when conmon comes, which would wait for a reader.
    reader = os.open(files.log_fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        process = _start(bundle, reader)
        yield
        try:
            status = process.wait(timeout=_STARTED_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
    finally:
        os.close(reader)
    if status != 0:
        said = files.diagnostics.read_text(errors="replace").strip()
        raise StartFailed(f"container {bundle.container_id!r}: the relay of its log failed: {said}", exit_code=128)


def find_relay(bundle: Path) -> Process | None:
    """The living relay of this bundle."""
    pid = read_pid_file(ConmonFiles(bundle=bundle).relay_pid)
    process = read_process(pid) if pid else None
    return process if process and str(bundle) in command_line(process.pid) else None


def _start(bundle: Bundle, reader: int) -> subprocess.Popen[bytes]:
    files = ConmonFiles(bundle=bundle.directory)
    sizes = (str(bundle.log_buffer), str(bundle.log_size_limit))
    with files.diagnostics.open("ab") as diagnostics:
        return subprocess.Popen(
            [*RELAY, bundle.container_id, str(bundle.directory), str(bundle.log_path), *sizes],
            stdin=reader,
            stdout=subprocess.DEVNULL,
            stderr=diagnostics,
            env=dict(MINIMAL_ENVIRONMENT),
            start_new_session=True,
        )
