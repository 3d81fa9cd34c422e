"""The OCI runtime's process for an exec, with the streams the program gets and our ends of them.

A terminal comes from crun over its console socket. Other runtimes only send one when they leave the program to nobody,
and with it its exit code: they get one terminal of ours, and pass on between it and the one they make.
"""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from executor_service.container import TerminalSize
from executor_service.logs.record import Stream
from executor_service.oci.exec_runtime import ExecStreams
from executor_service.oci.exec_streams import receive_terminal, resize
from executor_service.run import MINIMAL_ENVIRONMENT


@dataclass(slots=True, kw_only=True)
class Spawned:
    """The runtime's process and our ends of its streams. `console`: where the terminal comes from, still to be had."""

    popen: subprocess.Popen[bytes]
    stdin: int | None = None
    outputs: dict[int, Stream] = field(default_factory=dict)
    terminal: int | None = None
    console: socket.socket | None = None
    proxied: bool = False  # the runtime passes on between our terminal and the program's

    def close(self) -> None:
        for descriptor in (self.stdin, self.terminal, *self.outputs):
            if descriptor is not None:
                os.close(descriptor)
        self.stdin = self.terminal = None
        self.outputs = {}


@dataclass(slots=True, kw_only=True)
class Spawn:
    """Starts the runtime. `ours` undoes what is kept on success, `theirs` closes what the child has got. `owner`: whose
    the pipes shall be, who may open them again (/dev/stdout); None leaves that to the runtime. Blocks."""

    ours: ExitStack
    theirs: ExitStack
    owner: tuple[int, int] | None = None

    def with_pipes(self, argv: list[str], streams: ExecStreams) -> Spawned:
        stdin_read, stdin_write = self._pipe(kept=1) if streams.stdin else (subprocess.DEVNULL, None)
        outputs: dict[int, Stream] = {}
        given: list[int] = []
        for wanted, stream in ((streams.stdout, Stream.STDOUT), (streams.stderr, Stream.STDERR)):
            if wanted:
                read, write = self._pipe(kept=0)
                outputs[read] = stream
                given.append(write)
            else:
                given.append(subprocess.DEVNULL)
        popen = self._popen(argv, (stdin_read, given[0], given[1]))
        return Spawned(popen=popen, stdin=stdin_write, outputs=outputs)

    def with_console_socket(self, argv: list[str], container_id: str, directory: Path) -> Spawned:
        # Through a descriptor, because a socket's path may have 107 bytes and no more.
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.theirs.callback(os.close, place)
        path = f"/proc/self/fd/{place}/console"
        listener = self.ours.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.setblocking(False)
        listener.bind(path)
        listener.listen(1)
        nothing = subprocess.DEVNULL
        argv = [*argv, "--console-socket", path, container_id]
        return Spawned(popen=self._popen(argv, (nothing, nothing, nothing), (place,)), console=listener)

    def with_own_terminal(self, argv: list[str], size: TerminalSize | None) -> Spawned:
        master, slave = pty.openpty()
        self.ours.callback(os.close, master)
        self.theirs.callback(os.close, slave)
        os.set_blocking(master, False)
        if size is not None:
            resize(master, size)
        return Spawned(popen=self._popen(argv, (slave, slave, slave)), terminal=master, proxied=True)

    def _popen(
        self, argv: list[str], streams: tuple[int, int, int], pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        stdin, stdout, stderr = streams
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=dict(MINIMAL_ENVIRONMENT),
            pass_fds=pass_fds,
            start_new_session=True,
        )

    def _pipe(self, *, kept: int) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self.ours.callback(os.close, ends[kept])
        self.theirs.callback(os.close, ends[1 - kept])
        os.set_blocking(ends[kept], False)
        if self.owner is not None:
            os.fchown(ends[kept], *self.owner)
        return ends


def set_oom_score(pid: int, score: int) -> None:
    """For the runtime, whose child inherits it: crun does not set the one of an exec, and the executor's own may be one
    that protects it. Lowering it needs a right that not every host gives; then it stays."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))


def watch_end(popen: subprocess.Popen[bytes]) -> asyncio.Future[int]:
    """Its exit code, 128+n after signal n, when it ends."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    descriptor = os.pidfd_open(popen.pid)

    def reap() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        code = popen.wait()
        ended.set_result(code if code >= 0 else 128 - code)

    loop.add_reader(descriptor, reap)
    return ended


async def terminal_of(listener: socket.socket, ended: asyncio.Future[int]) -> int | None:
    """None when the runtime ended before it sent one."""
    receiving = asyncio.ensure_future(receive_terminal(listener))
    try:
        await asyncio.wait({receiving, ended}, return_when=asyncio.FIRST_COMPLETED)
        return receiving.result() if receiving.done() else None
    finally:
        receiving.cancel()
        listener.close()
