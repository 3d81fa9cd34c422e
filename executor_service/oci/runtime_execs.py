"""The ExecRuntime of this engine: `crun exec`, `runc exec`, or another runtime that takes the same arguments.

A terminal comes from crun over its console socket. Other runtimes only send one when they leave the program to nobody,
and with it its exit code: they get one terminal of ours, and pass on between it and the one they make.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from common.errors import DeadlineExceeded, FailedPrecondition
from executor_service.container import TerminalSize
from executor_service.host_errors import host_errors
from executor_service.logs.record import Stream
from executor_service.logs.watch import LogWatcher
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.exec_process import ExecProcessSpec, oci_process
from executor_service.oci.exec_runtime import ExecRuntime, ExecStreams, ExecTarget, LeftExec, ProbeOutcome, RunningExec
from executor_service.oci.exec_streams import InputWriter, OutputReader, receive_terminal, resize
from executor_service.oci.processes import read_pid_file, read_process, send_signal
from executor_service.oci.runtime import Process
from executor_service.oci.runtimes import RuntimeBinary, RuntimeCatalog, RuntimeKind
from executor_service.oci.start_errors import start_failed
from executor_service.run import MINIMAL_ENVIRONMENT
from executor_service.storage.threads import finish, settle
from executor_service.user_mapping import mapping_of

_log = structlog.get_logger(__name__)

_PROBE = "probe-"  # how the directory of a probe begins, which no exec's does
_MAX_THREADS = 4  # a container can keep a look-up in its files waiting, and then holds no thread but these


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecTimeouts:
    """Seconds."""

    start: float = 30.0
    kill: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """What the runtime is given and writes, in the bundle: gone with the container at the latest."""

    directory: Path

    @property
    def process(self) -> Path:
        return self.directory / "process.json"

    @property
    def pid(self) -> Path:
        return self.directory / "pid"

    @property
    def detached(self) -> Path:
        return self.directory / "detached"

    @property
    def log(self) -> Path:
        """The runtime's own words, which must not get into the program's output."""
        return self.directory / "log"


@dataclass(slots=True, kw_only=True)
class _Spawned:
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


class _Running:
    def __init__(self, spawned: _Spawned, ended: asyncio.Future[int], process: Process) -> None:
        self._spawned = spawned
        self._process = process
        self._ended = ended
        terminal = spawned.terminal
        outputs = dict(spawned.outputs) if terminal is None else {terminal: Stream.STDOUT}
        self._reader = OutputReader(descriptors=outputs, terminal=terminal is not None)
        stdin = spawned.stdin if terminal is None else terminal
        self._writer = InputWriter(descriptor=stdin, terminal=terminal is not None) if stdin is not None else None
        ended.add_done_callback(lambda _: self._reader.end())

    @property
    def process(self) -> Process:
        return self._process

    @property
    def ended(self) -> asyncio.Future[int]:
        return self._ended

    async def read(self) -> tuple[Stream, bytes] | None:
        return await self._reader.read()

    async def write(self, data: bytes) -> None:
        if self._writer is not None:
            await self._writer.write(data)

    async def end_input(self) -> None:
        if self._writer is not None:
            await self._writer.end()
            if self._spawned.terminal is None:
                self._spawned.stdin = None  # closed by the writer

    def resize(self, size: TerminalSize) -> None:
        terminal = self._spawned.terminal
        if terminal is None:
            raise FailedPrecondition("it has no terminal, or has ended", reason="NO_TERMINAL")
        resize(terminal, size)
        if self._spawned.proxied:
            self._spawned.popen.send_signal(signal.SIGWINCH)

    def signal(self, number: int) -> bool:
        return send_signal(self._process, number)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            if self._spawned.terminal is None:
                self._spawned.stdin = None
        self._spawned.close()


class RuntimeExecs:
    """`state_root` as the ContainerRuntime's. Made by `open`."""

    def __init__(
        self,
        *,
        catalog: RuntimeCatalog,
        state_root: Path,
        cgroups: CgroupTree,
        watcher: LogWatcher,
        pool: ThreadPoolExecutor,
        timeouts: ExecTimeouts,
    ) -> None:
        self._catalog = catalog
        self._state_root = state_root
        self._cgroups = cgroups
        self._watcher = watcher
        self._pool = pool
        self._timeouts = timeouts

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, catalog: RuntimeCatalog, state_root: Path, cgroups: CgroupTree, timeouts: ExecTimeouts | None = None
    ) -> AsyncIterator[RuntimeExecs]:
        async with AsyncExitStack() as stack:
            watcher = await stack.enter_async_context(LogWatcher.open())
            pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="exec")
            stack.callback(pool.shutdown, wait=False)
            yield cls(
                catalog=catalog,
                state_root=state_root,
                cgroups=cgroups,
                watcher=watcher,
                pool=pool,
                timeouts=timeouts or ExecTimeouts(),
            )

    async def spawn(
        self, target: ExecTarget, exec_id: str, process: ExecProcessSpec, streams: ExecStreams
    ) -> RunningExec:
        starting = asyncio.ensure_future(self._spawn(target, exec_id, process, streams))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The runtime cannot be stopped half-way without losing sight of the program.
            await settle(self._abandon(starting, target.bundle, exec_id))
            raise

    async def run_probe(
        self, target: ExecTarget, process: ExecProcessSpec, *, timeout: float, max_output: int
    ) -> ProbeOutcome:
        probe_id = f"{_PROBE}{secrets.token_hex(8)}"
        running = await self.spawn(target, probe_id, process, ExecStreams(stdout=True, stderr=True))
        output = bytearray()
        in_time = True
        try:
            try:
                async with asyncio.timeout(timeout):
                    while (chunk := await running.read()) is not None:
                        output += chunk[1][: max_output - len(output)]
                    await asyncio.shield(running.ended)
            except TimeoutError:
                in_time = False
            return ProbeOutcome(exit_code=running.ended.result() if in_time else None, output=bytes(output))
        finally:
            await settle(self._end(running, target.bundle, probe_id))

    def mark_detached(self, bundle: Path, exec_id: str) -> None:
        with suppress(OSError):
            _files(bundle, exec_id).detached.touch(mode=0o600)

    def left(self, bundle: Path) -> dict[str, LeftExec]:
        found: dict[str, LeftExec] = {}
        with suppress(FileNotFoundError):
            for directory in (bundle / "execs").iterdir():
                files = _Files(directory=directory)
                pid = read_pid_file(files.pid)
                found[directory.name] = LeftExec(
                    process=read_process(pid) if pid else None, detached=files.detached.exists()
                )
        return found

    def forget(self, bundle: Path, exec_id: str) -> None:
        shutil.rmtree(_files(bundle, exec_id).directory, ignore_errors=True)

    async def _spawn(
        self, target: ExecTarget, exec_id: str, process: ExecProcessSpec, streams: ExecStreams
    ) -> RunningExec:
        files = _files(target.bundle, exec_id)
        binary = self._catalog.resolve(target.runtime)
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as undo:
            undo.callback(self.forget, target.bundle, exec_id)
            # The kernel makes the runtime's move into the container's cgroup wait: let that begin beside the rest.
            warm_up = loop.run_in_executor(None, self._cgroups.expect_migration)
            undo.push_async_callback(asyncio.wait, {warm_up})
            with host_errors(f"exec in container {target.container_id!r}"):
                spawned = await finish(
                    lambda: self._spawn_blocking(target, files, binary, process, streams), pool=self._pool
                )
                undo.callback(spawned.close)
                ended = _watch(spawned.popen)
                undo.push_async_callback(self._kill, spawned, ended, files)
                begun = await self._begun(target, spawned, ended, files, command=process.args[0])
            undo.pop_all()
            return _Running(spawned, ended, begun)

    def _spawn_blocking(
        self,
        target: ExecTarget,
        files: _Files,
        binary: RuntimeBinary,
        process: ExecProcessSpec,
        streams: ExecStreams,
    ) -> _Spawned:
        files.directory.parent.mkdir(mode=0o700, exist_ok=True)
        files.directory.mkdir(mode=0o700)
        mapping = mapping_of(target.process.pid) if target.remapped else None
        described, user = oci_process(process, target.process, mapping)
        files.process.write_text(json.dumps(described, separators=(",", ":")))
        state = self._state_root / binary.name
        argv = [str(binary.path), f"--root={state}", "--log", str(files.log), "exec"]
        argv += ["--process", str(files.process), "--pid-file", str(files.pid)]
        with ExitStack() as ours, ExitStack() as theirs:
            owner = mapping.outside(user.uid, user.gid) if mapping is not None else None
            spawn = _Spawn(ours=ours, theirs=theirs, owner=owner)
            if not process.terminal:
                spawned = spawn.with_pipes([*argv, target.container_id], streams)
            elif binary.kind is RuntimeKind.CRUN:
                spawned = spawn.with_console_socket(argv, target.container_id, files.directory)
            else:
                spawned = spawn.with_own_terminal([*argv, target.container_id], process.terminal_size)
            _set_oom_score(spawned.popen.pid, process.oom_score_adj)
            ours.pop_all()
            return spawned

    async def _begun(
        self, target: ExecTarget, spawned: _Spawned, ended: asyncio.Future[int], files: _Files, *, command: str
    ) -> Process:
        try:
            async with asyncio.timeout(self._timeouts.start):
                if spawned.console is not None:
                    spawned.terminal = await _terminal(spawned.console, ended)
                pid = await self._pid(files.pid, ended)
        except TimeoutError as error:
            why = f"the runtime did not start the program in {self._timeouts.start:g} s"
            raise DeadlineExceeded(f"exec in container {target.container_id!r}: {why}") from error
        if pid is None:
            said = await finish(lambda: _text(files.log), pool=self._pool)
            raise start_failed(target.container_id, said, command=command)
        # One that has ended already has no start time, and no signal will reach it.
        return read_process(pid) or Process(pid=pid, start_time=0)

    async def _pid(self, file: Path, ended: asyncio.Future[int]) -> int | None:
        """None when the runtime ended without starting the program: it writes the file when it has."""
        with self._watcher.subscribe(file) as written:

            def wake(_: object) -> None:
                written.set()

            ended.add_done_callback(wake)
            try:
                while True:
                    written.clear()
                    over = ended.done()
                    if (pid := read_pid_file(file)) is not None or over:
                        return pid
                    await written.wait()
            finally:
                ended.remove_done_callback(wake)

    async def _kill(self, spawned: _Spawned, ended: asyncio.Future[int], files: _Files) -> None:
        """The runtime, and the program if it has begun."""
        if not ended.done():
            spawned.popen.kill()
            await asyncio.wait({ended})
        pid = read_pid_file(files.pid)
        if pid is not None and (process := read_process(pid)) is not None:
            send_signal(process, signal.SIGKILL)

    async def _abandon(self, starting: asyncio.Future[RunningExec], bundle: Path, exec_id: str) -> None:
        await asyncio.wait({starting})
        if not starting.cancelled() and starting.exception() is None:
            await self._end(starting.result(), bundle, exec_id)

    async def _end(self, running: RunningExec, bundle: Path, exec_id: str) -> None:
        """Kill it if it still runs, and drop everything of it."""
        if not running.ended.done():
            running.signal(signal.SIGKILL)
            await asyncio.wait({running.ended}, timeout=self._timeouts.kill)
        running.close()
        await finish(lambda: self.forget(bundle, exec_id), pool=self._pool)


@dataclass(slots=True, kw_only=True)
class _Spawn:
    """Starts the runtime. `ours` undoes what is kept on success, `theirs` closes what the child has got. `owner`: whose
    the pipes shall be, who may open them again (/dev/stdout); None leaves that to the runtime. Blocks."""

    ours: ExitStack
    theirs: ExitStack
    owner: tuple[int, int] | None = None

    def with_pipes(self, argv: list[str], streams: ExecStreams) -> _Spawned:
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
        return _Spawned(popen=popen, stdin=stdin_write, outputs=outputs)

    def with_console_socket(self, argv: list[str], container_id: str, directory: Path) -> _Spawned:
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
        return _Spawned(popen=self._popen(argv, (nothing, nothing, nothing), (place,)), console=listener)

    def with_own_terminal(self, argv: list[str], size: TerminalSize | None) -> _Spawned:
        master, slave = pty.openpty()
        self.ours.callback(os.close, master)
        self.theirs.callback(os.close, slave)
        os.set_blocking(master, False)
        if size is not None:
            resize(master, size)
        return _Spawned(popen=self._popen(argv, (slave, slave, slave)), terminal=master, proxied=True)

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


def _set_oom_score(pid: int, score: int) -> None:
    """For the runtime, whose child inherits it: crun does not set the one of an exec, and the executor's own may be one
    that protects it. Lowering it needs a right that not every host gives; then it stays."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(score))


def _watch(popen: subprocess.Popen[bytes]) -> asyncio.Future[int]:
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


async def _terminal(listener: socket.socket, ended: asyncio.Future[int]) -> int | None:
    """None when the runtime ended before it sent one."""
    receiving = asyncio.ensure_future(receive_terminal(listener))
    try:
        await asyncio.wait({receiving, ended}, return_when=asyncio.FIRST_COMPLETED)
        return receiving.result() if receiving.done() else None
    finally:
        receiving.cancel()
        listener.close()


def _files(bundle: Path, exec_id: str) -> _Files:
    return _Files(directory=bundle / "execs" / exec_id)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


_: type[ExecRuntime] = RuntimeExecs
__: type[RunningExec] = _Running
