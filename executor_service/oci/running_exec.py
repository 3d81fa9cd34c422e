"""The RunningExec of this engine: a program, the runtime that is its parent, and our ends of its streams."""

from __future__ import annotations

import asyncio
import signal

from common.errors import FailedPrecondition
from executor_service.container import TerminalSize
from executor_service.logs.record import Stream
from executor_service.oci.exec_runtime import RunningExec
from executor_service.oci.exec_spawn import Spawned
from executor_service.oci.exec_streams import InputWriter, OutputReader, resize
from executor_service.oci.processes import send_signal
from executor_service.oci.runtime import Process


class RunningProgram:
    def __init__(self, spawned: Spawned, ended: asyncio.Future[int], process: Process) -> None:
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


_: type[RunningExec] = RunningProgram
