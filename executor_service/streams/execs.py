"""The programs that run in containers besides their own processes: each is watched to its end, which is journaled.

Streams and exit codes live in this process. What a former executor left is watched again as far as it can be: a
program that was detached goes on; one that somebody was attached to has lost its streams and its client, and is ended.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from common.errors import FailedPrecondition, NotFound, ResourceExhausted, SlipwayError
from executor_service.container import CONTAINER_ID
from executor_service.journal_entries import ExecExited, JournalEntry
from executor_service.oci.exec_process import ExecProcessSpec
from executor_service.oci.exec_runtime import ExecRuntime, ExecStreams, ExecTarget, RunningExec
from executor_service.oci.processes import send_signal, wait_ended
from executor_service.oci.runtime import Process
from executor_service.records import ContainerRecords
from executor_service.tasks import cancel_all

_log = structlog.get_logger(__name__)

_RETRY = 1.0  # seconds until a journal entry that cannot be written is tried again
_PATIENCE = 10.0  # seconds from SIGTERM to SIGKILL, Docker's
_MAX_PROGRAMS = 1024
UNSEEN = "the executor was stopped or killed while it ran, so nobody saw the exit code"


@dataclass(slots=True, kw_only=True)
class Program:
    """`ended` becomes its `exec_exited` entry, or None when its container was removed meanwhile."""

    exec_id: str
    target: ExecTarget
    running: RunningExec
    ended: asyncio.Future[JournalEntry | None]
    left: bool = False  # nobody reads its output any more


class Execs:
    """Made by `open`. Belongs to one event loop."""

    def __init__(self, *, records: ContainerRecords, runtime: ExecRuntime) -> None:
        self._records = records
        self._runtime = runtime
        self._programs: dict[str, Program] = {}
        self._others: dict[str, str] = {}  # that are being started, or were adopted, by id: their container
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, *, records: ContainerRecords, runtime: ExecRuntime) -> AsyncIterator[Execs]:
        """Leaving it leaves the programs running, without their streams."""
        execs = cls(records=records, runtime=runtime)
        try:
            yield execs
        finally:
            await cancel_all(execs._tasks)
            for program in execs._programs.values():
                program.running.close()

    async def start(
        self, target: ExecTarget, exec_id: str, process: ExecProcessSpec, streams: ExecStreams, *, detach: bool
    ) -> Program:
        """Raises what `ExecRuntime.spawn` does, FailedPrecondition for an id that runs, ResourceExhausted."""
        if exec_id in self._programs or exec_id in self._others:
            raise FailedPrecondition(
                f"exec {exec_id!r} runs already", resource_type="exec", resource_name=exec_id, reason="EXEC_RUNNING"
            )
        if len(self._programs) + len(self._others) >= _MAX_PROGRAMS:
            raise ResourceExhausted(
                f"{_MAX_PROGRAMS} programs run in this node's containers already; wait for one to end",
                reason="TOO_MANY_EXECS",
            )
        self._others[exec_id] = target.container_id
        try:
            running = await self._runtime.spawn(target, exec_id, process, streams)
        finally:
            del self._others[exec_id]
        program = Program(
            exec_id=exec_id, target=target, running=running, ended=asyncio.get_running_loop().create_future()
        )
        self._programs[exec_id] = program
        self._begin(self._supervise(program))
        if detach:
            self.detach(program)
        return program

    def get(self, exec_id: str) -> Program:
        """Raises FailedPrecondition when it does not run."""
        program = self._programs.get(exec_id)
        if program is None:
            raise FailedPrecondition(
                f"exec {exec_id!r} does not run", resource_type="exec", resource_name=exec_id, reason="EXEC_NOT_RUNNING"
            )
        return program

    def by_container(self) -> dict[str, list[str]]:
        """The ids of all that are being started, or whose end is not journaled."""
        found: dict[str, list[str]] = {}
        for exec_id, program in self._programs.items():
            found.setdefault(program.target.container_id, []).append(exec_id)
        for exec_id, container_id in self._others.items():
            found.setdefault(container_id, []).append(exec_id)
        return found

    def detach(self, program: Program) -> None:
        """Nobody reads it any more, and it goes on."""
        self._runtime.mark_detached(program.target.bundle, program.exec_id)
        self._leave(program)

    def abandon(self, program: Program) -> None:
        """Whoever had started it went away: SIGTERM, and SIGKILL after ten seconds."""
        self._leave(program)
        if not program.ended.done():
            self._begin(self._terminate(program.running.process, program.running.ended))

    def adopt(self, container_id: str, bundle: Path) -> None:
        """Take over what a former executor left in a container that still runs."""
        for exec_id, left in self._runtime.left(bundle).items():
            if not CONTAINER_ID.fullmatch(exec_id):  # a probe
                if left.process is not None:
                    send_signal(left.process, signal.SIGKILL)
                self._runtime.forget(bundle, exec_id)
                continue
            self._others[exec_id] = container_id
            self._begin(self._adopted(container_id, bundle, exec_id, left.process, detached=left.detached))

    def _leave(self, program: Program) -> None:
        if not program.left:
            program.left = True
            self._begin(self._drain(program))

    async def _supervise(self, program: Program) -> None:
        structlog.contextvars.clear_contextvars()  # those of the call that started it
        code = await asyncio.shield(program.running.ended)
        event = ExecExited(exec_id=program.exec_id, exit_code=code)
        entry = await self._journal(program.target.container_id, event)
        del self._programs[program.exec_id]
        program.ended.set_result(entry)
        await asyncio.to_thread(self._runtime.forget, program.target.bundle, program.exec_id)

    async def _drain(self, program: Program) -> None:
        """Or the program would wait, once the pipe is full."""
        while await program.running.read() is not None:
            pass
        await asyncio.shield(program.running.ended)
        program.running.close()

    async def _terminate(self, process: Process, ended: asyncio.Future[int]) -> None:
        send_signal(process, signal.SIGTERM)
        done, _ = await asyncio.wait({ended}, timeout=_PATIENCE)
        if not done:
            send_signal(process, signal.SIGKILL)

    async def _adopted(
        self, container_id: str, bundle: Path, exec_id: str, process: Process | None, *, detached: bool
    ) -> None:
        if process is not None:
            ended = asyncio.ensure_future(wait_ended(process))
            try:
                if not detached:
                    send_signal(process, signal.SIGTERM)
                    done, _ = await asyncio.wait({ended}, timeout=_PATIENCE)
                    if not done:
                        send_signal(process, signal.SIGKILL)
                await ended
            finally:
                ended.cancel()
        await self._journal(container_id, ExecExited(exec_id=exec_id, exit_code=None, error=UNSEEN))
        del self._others[exec_id]
        await asyncio.to_thread(self._runtime.forget, bundle, exec_id)

    async def _journal(self, container_id: str, event: ExecExited) -> JournalEntry | None:
        while True:
            try:
                return await self._records.transition(container_id, event)
            except NotFound:
                return None
            except SlipwayError as error:
                _log.error("the end of an exec cannot be journaled", exec=event.exec_id, error=error.message)
                await asyncio.sleep(_RETRY)

    def _begin(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("watching an exec failed", exc_info=error)
