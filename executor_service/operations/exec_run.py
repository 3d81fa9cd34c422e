"""Run a program in a container, with a client at its streams.

Output is read as the client takes it: a slow one slows the program down, as Docker's does, and costs no memory. A
client that goes away ends the program, unless it detached.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from common.errors import InvalidArgument
from executor_service.container import TerminalSize
from executor_service.container_record import Phase
from executor_service.journal_entries import JournalEntry
from executor_service.node import Node
from executor_service.oci.exec_process import ExecProcessSpec
from executor_service.oci.exec_runtime import ExecStreams, RunningExec
from executor_service.operations.exec_rules import exec_violations
from executor_service.operations.exec_target import exec_target
from executor_service.operations.running import not_running
from executor_service.streams.client_input import feed
from executor_service.streams.exec_spec import ExecSpec, StreamInput, StreamOutput
from executor_service.streams.execs import Program


async def exec_run(
    node: Node, spec: ExecSpec, inputs: AsyncIterator[StreamInput]
) -> AsyncGenerator[int | StreamOutput | JournalEntry]:
    """Its pid, its output, its `exec_exited` entry; only the pid when it is detached from the beginning, no entry when
    it is detached later or its container was removed. Raises StartFailed, NotFound, FailedPrecondition, InvalidArgument
    before the pid."""
    if broken := exec_violations(spec):
        raise InvalidArgument(violations=broken)
    program = await _start(node, spec)
    if spec.detach:
        yield program.running.process.pid
        return
    leaving = asyncio.create_task(_left(program, inputs))
    try:
        yield program.running.process.pid
        while (output := await _next(program, leaving)) is not None:
            yield output
        either: set[asyncio.Future[Any]] = {program.ended, leaving}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            leaving.result()
            node.execs.detach(program)
        elif (entry := program.ended.result()) is not None:
            yield entry
    finally:
        leaving.cancel()
        # Before anything is waited for: a call can be cancelled more than once.
        if not program.left:
            node.execs.abandon(program)
        await asyncio.wait({leaving})


async def _start(node: Node, spec: ExecSpec) -> Program:
    record = node.records.get(spec.container_id)
    watch = node.supervisor.watched(spec.container_id)
    if watch is None or record.spec is None or record.phase is not Phase.RUNNING or record.removing:
        raise not_running(record)
    own = record.spec
    process = ExecProcessSpec(
        args=spec.args,
        env=spec.env,
        working_dir=spec.working_dir or "/",
        user=spec.user,
        group_add=spec.group_add,
        capabilities=spec.capabilities,
        no_new_privileges=spec.no_new_privileges,
        apparmor_profile=own.security.apparmor_profile,
        rlimits=own.rlimits,
        oom_score_adj=own.oom_score_adj,
        terminal=spec.terminal,
        terminal_size=spec.terminal_size,
    )
    streams = ExecStreams() if spec.detach else ExecStreams(stdin=spec.stdin, stdout=spec.stdout, stderr=spec.stderr)
    return await node.execs.start(
        exec_target(node.paths, own, watch.run), spec.id, process, streams, detach=spec.detach
    )


async def _next(program: Program, leaving: asyncio.Task[None]) -> StreamOutput | None:
    """None at the end, and when the client leaves."""
    reading = asyncio.ensure_future(program.running.read())
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done() or (chunk := reading.result()) is None:
            return None
        return StreamOutput(stream=chunk[0], data=chunk[1])
    finally:
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading})


async def _left(program: Program, inputs: AsyncIterator[StreamInput]) -> None:
    """Return when the client detaches, raise what is wrong with what it sends; it may send no more and stay."""
    if not await feed(inputs, _Input(running=program.running)):
        await asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Input:
    running: RunningExec

    async def write(self, data: bytes) -> None:
        await self.running.write(data)

    async def end_input(self) -> None:
        await self.running.end_input()

    async def resize(self, size: TerminalSize) -> None:
        self.running.resize(size)
