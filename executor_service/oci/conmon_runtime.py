"""The ContainerRuntime of this engine: conmon keeps each container, crun or runc makes it.

What is asked most often needs no other program: signals and ends go through pidfds, and a container that has ended is
cleared away by removing its cgroups and the runtime's state directory. The runtime's own `delete` is for the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from common.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    ResourceExhausted,
    SlipwayError,
    StartFailed,
)
from executor_service.container import CONTAINER_ID
from executor_service.oci.bundle_record import command_of, find_created, find_monitor, read_exit, was_oom_killed
from executor_service.oci.cgroups import CgroupTree
from executor_service.oci.conmon import ConmonFiles, conmon_argv, parse_sync, read_sync, spawn
from executor_service.oci.deletion import Deletion
from executor_service.oci.init import hears
from executor_service.oci.log_relay import find_relay, relayed
from executor_service.oci.processes import read_process, send_signal, wait_ended
from executor_service.oci.runtime import Bundle, ContainerRuntime, CreatedProcess, Exit, Process
from executor_service.oci.runtime_timeouts import RuntimeTimeouts
from executor_service.oci.runtimes import RuntimeBinary, RuntimeCatalog, RuntimeKind
from executor_service.oci.seccomp_filters import CompiledFilters
from executor_service.oci.start_errors import start_failed
from executor_service.oci.user_namespace import check_users, config_for, domainname, give_streams, set_domainname
from executor_service.run import run
from executor_service.threads import in_own_thread, to_the_end

_EXHAUSTED = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConmonRuntime:
    """`state_root` is the directory of the runtimes' own state, one below it for each runtime."""

    catalog: RuntimeCatalog
    state_root: Path
    cgroups: CgroupTree
    conmon: Path = Path("/usr/bin/conmon")
    timeouts: RuntimeTimeouts = field(default_factory=RuntimeTimeouts)
    _filters: CompiledFilters = field(default_factory=CompiledFilters)

    async def create(self, bundle: Bundle) -> CreatedProcess:
        _check_id(bundle.container_id)
        runtime = self.catalog.resolve(bundle.runtime)
        spawned: asyncio.Future[int] | None = None
        try:
            sync_read, sync_write = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise _host_failure(bundle.container_id, error) from error
        try:
            async with asyncio.timeout(self.timeouts.create):
                with config_for(bundle, runtime.kind) as config:
                    spawned = asyncio.ensure_future(asyncio.to_thread(self._spawn, bundle, config, runtime, sync_write))
                    await asyncio.shield(spawned)
                    answer = await read_sync(sync_read)
                    created = self._created(bundle, runtime, answer)
                if name := domainname(bundle):
                    await in_own_thread(lambda: set_domainname(created.container.pid, name))
                return created
        except BaseException as error:
            await to_the_end(self._abandon(bundle, spawned))
            if isinstance(error, TimeoutError):
                message = f"container {bundle.container_id!r}: the runtime did not answer in {self.timeouts.create:g} s"
                raise DeadlineExceeded(message) from error
            if isinstance(error, OSError):
                raise _host_failure(bundle.container_id, error) from error
            raise
        finally:
            os.close(sync_read)

    async def start(self, container_id: str, *, runtime: str = "") -> None:
        _check_id(container_id)
        binary = self.catalog.resolve(runtime)
        if binary.kind is RuntimeKind.CRUN and _open_gate(self._state(binary) / container_id):
            return
        argv = [str(binary.path), f"--root={self._state(binary)}", "start", container_id]
        try:
            done = await run(argv, timeout=self.timeouts.start)
        except TimeoutError as error:
            message = f"container {container_id!r}: {binary.name} start took longer than {self.timeouts.start:g} s"
            raise DeadlineExceeded(message) from error
        if done.returncode != 0:
            raise start_failed(container_id, done.message, command="")

    async def kill(self, container_id: str, process: Process, signal: int, *, init: bool = False) -> None:
        if init:
            await hears(process, signal)
        if not send_signal(process, signal):
            message = f"container {container_id!r}: its process {process.pid} has ended"
            raise FailedPrecondition(message, resource_type="container", resource_name=container_id)

    async def delete(self, container_id: str, *, bundle: Path, runtime: str = "") -> None:
        _check_id(container_id)
        binary = self.catalog.resolve(runtime)
        try:
            async with asyncio.timeout(self.timeouts.delete):
                await self._deletion.end(container_id, bundle=bundle, binary=binary)
        except TimeoutError as error:
            message = (
                f"container {container_id!r}: its process does not end, even after SIGKILL; it may wait for a device"
            )
            raise DeadlineExceeded(message) from error
        await self._deletion.clear(container_id, bundle=bundle, binary=binary)

    async def wait_exit(self, created: CreatedProcess, *, bundle: Path) -> Exit:
        files = ConmonFiles(bundle=bundle)
        container = asyncio.ensure_future(wait_ended(created.container))
        monitor = asyncio.ensure_future(wait_ended(created.monitor))
        try:
            await asyncio.wait({container, monitor}, return_when=asyncio.FIRST_COMPLETED)
            for watch in (container, monitor):
                if watch.done():
                    watch.result()  # raises when watching failed, which is no end
            if not monitor.done():
                # The monitor drains the output, writes the exit file and ends; a stuck one is not waited for.
                await asyncio.wait({monitor}, timeout=self.timeouts.exit_file)
            await self._let_relay_end(bundle)
            if (found := read_exit(files)) is None:
                # Nobody will ever see this container's exit code, nor write its output: it must not run on unobserved.
                send_signal(created.container, signal.SIGKILL)
                await container
                found = read_exit(files) or Exit(code=None, oom_killed=was_oom_killed(files), finished_at=time.time())
            return found
        finally:
            container.cancel()
            monitor.cancel()
            await asyncio.gather(container, monitor, return_exceptions=True)

    def find(self, bundle: Path) -> CreatedProcess | None:
        return find_created(bundle)

    def _spawn(self, bundle: Bundle, config: Mapping[str, object], runtime: RuntimeBinary, sync_write: int) -> int:
        """In a worker thread: write the bundle, start conmon. Owns and closes `sync_write`."""
        try:
            files = ConmonFiles(bundle=bundle.directory)
            files.prepare()
            state = self._state(runtime)
            filtered = self._filters.apply(config) if runtime.kind is RuntimeKind.CRUN else config
            _write_private(files.config, json.dumps(filtered, separators=(",", ":")).encode())
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            argv = conmon_argv(self.conmon, bundle, runtime=runtime, state_root=state)
            with relayed(bundle):
                return spawn(argv, bundle=bundle.directory, sync_write=sync_write)
        finally:
            os.close(sync_write)

    def _created(self, bundle: Bundle, runtime: RuntimeBinary, answer: bytes) -> CreatedProcess:
        files = ConmonFiles(bundle=bundle.directory)
        message = parse_sync(answer, diagnostics=files.diagnostics)
        if message.pid is None:
            raise start_failed(bundle.container_id, message.error, command=command_of(bundle))
        container, monitor = read_process(message.pid), find_monitor(bundle.directory)
        if container is None or monitor is None:
            raise StartFailed(f"container {bundle.container_id!r}: its process was killed at once", exit_code=128)
        if runtime.kind is RuntimeKind.CRUN:
            self._filters.learn(bundle.config, self._state(runtime) / bundle.container_id)
        if bundle.users is not None:
            check_users(bundle, container.pid)
            give_streams(bundle.users, container.pid)
        return CreatedProcess(container=container, monitor=monitor)

    async def _abandon(self, bundle: Bundle, spawned: asyncio.Future[int] | None) -> None:
        """Leave nothing of a create that failed at any point. A failure of this is logged: the error that led here is
        the one to report, and the next `delete` tries again."""
        if spawned is not None:
            await asyncio.wait({spawned})
        binary = self.catalog.resolve(bundle.runtime)
        try:
            await self._deletion.kill_all(bundle.container_id, bundle=bundle.directory, binary=binary)
            await self._deletion.clear(bundle.container_id, bundle=bundle.directory, binary=binary)
        except Exception as error:
            _log.error("a failed create was not undone whole", container=bundle.container_id, exc_info=error)

    async def _let_relay_end(self, bundle: Path) -> None:
        if relay := find_relay(bundle):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wait_ended(relay), self.timeouts.relay)

    @property
    def _deletion(self) -> Deletion:
        return Deletion(state_root=self.state_root, cgroups=self.cgroups, conmon=self.conmon, timeouts=self.timeouts)

    def _state(self, binary: RuntimeBinary) -> Path:
        return self.state_root / binary.name


def _check_id(container_id: str) -> None:
    # crun takes `../x` for an id and leaves its state directory: nothing but a real id may reach it.
    if not CONTAINER_ID.fullmatch(container_id):
        raise InvalidArgument(f"container id {container_id!r} is not 64 lower-case hexadecimal characters")


def _open_gate(state: Path) -> bool:
    """Do what `crun start` does, without the process: write to the fifo at which the created process waits to exec.

    False when there is no fifo or nobody waits; then crun itself is asked, which also knows why."""
    fifo = state / "exec.fifo"
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fifo.unlink()
        os.write(descriptor, b"1")
    finally:
        os.close(descriptor)
    return True


def _host_failure(container_id: str, error: OSError) -> SlipwayError:
    message = f"container {container_id!r}: {error.strerror}: {error.filename or 'the monitor'}"
    if error.errno in _EXHAUSTED:
        return ResourceExhausted(f"{message}; free some on this node and start it again")
    return Internal(message)


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


_: type[ContainerRuntime] = ConmonRuntime
