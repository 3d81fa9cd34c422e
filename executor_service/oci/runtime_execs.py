"""The ExecRuntime of this engine: `crun exec`, `runc exec`, or another runtime that takes the same arguments."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from common.errors import DeadlineExceeded
from executor_service.host_errors import host_errors
from executor_service.logs.watch import LogWatcher
from executor_service.oci.cgroup_moves import CgroupMoves
from executor_service.oci.exec_process import ExecProcessSpec, oci_process
from executor_service.oci.exec_runtime import ExecRuntime, ExecStreams, ExecTarget, LeftExec, ProbeOutcome, RunningExec
from executor_service.oci.exec_spawn import Spawn, Spawned, set_oom_score, terminal_of, watch_end
from executor_service.oci.processes import read_pid_file, read_process, send_signal
from executor_service.oci.running_exec import RunningProgram
from executor_service.oci.runtime import Process
from executor_service.oci.runtimes import RuntimeBinary, RuntimeCatalog, RuntimeKind
from executor_service.oci.start_errors import start_failed
from executor_service.threads import finish, to_the_end
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


class RuntimeExecs:
    """`state_root` as the ContainerRuntime's. Made by `open`."""

    def __init__(
        self,
        *,
        catalog: RuntimeCatalog,
        state_root: Path,
        moves: CgroupMoves,
        watcher: LogWatcher,
        pool: ThreadPoolExecutor,
        timeouts: ExecTimeouts,
    ) -> None:
        self._catalog = catalog
        self._state_root = state_root
        self._moves = moves
        self._watcher = watcher
        self._pool = pool
        self._timeouts = timeouts

    @classmethod
    @asynccontextmanager
    async def open(
        cls, *, catalog: RuntimeCatalog, state_root: Path, moves: CgroupMoves, timeouts: ExecTimeouts | None = None
    ) -> AsyncIterator[RuntimeExecs]:
        async with AsyncExitStack() as stack:
            watcher = await stack.enter_async_context(LogWatcher.open())
            pool = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix="exec")
            stack.callback(pool.shutdown, wait=False)
            yield cls(
                catalog=catalog,
                state_root=state_root,
                moves=moves,
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
            await to_the_end(self._abandon(starting, target.bundle, exec_id))
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
            await to_the_end(self._end(running, target.bundle, probe_id))

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
        async with AsyncExitStack() as undo:
            undo.callback(self.forget, target.bundle, exec_id)
            with self._moves.expected(), host_errors(f"exec in container {target.container_id!r}"):
                spawned = await finish(
                    lambda: self._spawn_blocking(target, files, binary, process, streams), pool=self._pool
                )
                undo.callback(spawned.close)
                ended = watch_end(spawned.popen)
                undo.push_async_callback(self._kill, spawned, ended, files)
                begun = await self._begun(target, spawned, ended, files, command=process.args[0])
            undo.pop_all()
            return RunningProgram(spawned, ended, begun)

    def _spawn_blocking(
        self,
        target: ExecTarget,
        files: _Files,
        binary: RuntimeBinary,
        process: ExecProcessSpec,
        streams: ExecStreams,
    ) -> Spawned:
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
            spawn = Spawn(ours=ours, theirs=theirs, owner=owner)
            if not process.terminal:
                spawned = spawn.with_pipes([*argv, target.container_id], streams)
            elif binary.kind is RuntimeKind.CRUN:
                spawned = spawn.with_console_socket(argv, target.container_id, files.directory)
            else:
                spawned = spawn.with_own_terminal([*argv, target.container_id], process.terminal_size)
            set_oom_score(spawned.popen.pid, process.oom_score_adj)
            ours.pop_all()
            return spawned

    async def _begun(
        self, target: ExecTarget, spawned: Spawned, ended: asyncio.Future[int], files: _Files, *, command: str
    ) -> Process:
        try:
            async with asyncio.timeout(self._timeouts.start):
                if spawned.console is not None:
                    spawned.terminal = await terminal_of(spawned.console, ended)
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

    async def _kill(self, spawned: Spawned, ended: asyncio.Future[int], files: _Files) -> None:
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


def _files(bundle: Path, exec_id: str) -> _Files:
    return _Files(directory=bundle / "execs" / exec_id)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


_: type[ExecRuntime] = RuntimeExecs
